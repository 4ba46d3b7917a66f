/* The calls connect() and accept(), told by their return. */
#pragma once

#include "connection.h"

/* NULL if the file is no socket. */
static __always_inline struct socket *socket_of_file(const struct file *file)
{
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	return BPF_CORE_READ(file, private_data);
}

/* The file behind a descriptor of the current process, or NULL. */
static __always_inline struct file *file_of_fd(int fd)
{
	struct file **slots, *file = NULL;
	u32 n;

	if (has_task_btf()) {
		struct fdtable *table = bpf_get_current_task_btf()->files->fdt;

		n = table->max_fds;
		slots = table->fd;
	} else {
		struct task_struct *task = (struct task_struct *)bpf_get_current_task();
		struct fdtable *table = BPF_CORE_READ(task, files, fdt);

		n = BPF_CORE_READ(table, max_fds);
		slots = BPF_CORE_READ(table, fd);
	}
	if (fd < 0 || (u32)fd >= n)
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
	return file;
}

/* The struct socket behind a file descriptor of the current process. */
static __always_inline struct socket *socket_of_fd(int fd)
{
	struct file *file = file_of_fd(fd);

	return file ? socket_of_file(file) : NULL;
}

/* The TCP socket that does the work of a socket: of MPTCP, its first subflow,
 * which is there from listen() or connect() on.
 */
static __always_inline struct sock *sock_of(const struct socket *socket)
{
	struct sock *sk = socket ? BPF_CORE_READ(socket, sk) : NULL;

	if (sk && bpf_core_type_exists(struct mptcp_sock) && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP)
		return BPF_CORE_READ((struct mptcp_sock *)sk, first);
	return sk;
}

static __always_inline bool is_ip(const struct sock *sk)
{
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	return family == AF_INET || family == AF_INET6;
}

/* Where the caller wanted to connect to. Read after the call, when the page is
 * certainly there. Returns the family.
 */
static __always_inline u16 wanted_remote(u64 address, struct endpoints *e)
{
	struct sockaddr_in6 in6 = {};
	struct sockaddr_in *in = (struct sockaddr_in *)&in6;

	if (bpf_probe_read_user(&in6, sizeof(*in), (void *)address))
		return AF_UNSPEC;
	if (in6.sin6_family == AF_INET) {
		address_from_v4(&e->remote, in->sin_addr.s_addr);
	} else if (in6.sin6_family == AF_INET6) {
		if (bpf_probe_read_user(&in6, sizeof(in6), (void *)address))
			return AF_UNSPEC;
		__builtin_memcpy(&e->remote, &in6.sin6_addr, sizeof(e->remote));
	} else {
		return AF_UNSPEC;
	}
	e->remote_port = bpf_ntohs(in6.sin6_port); /* at the same place in both */
	return in6.sin6_family;
}

/* A connect() that failed before the socket changed: nothing but the call
 * itself tells of it. (Not inline: Linux 5.10 gives all frames together 512 bytes.)
 */
static __noinline int failed_at_once(const struct sock *sk, u64 address, u16 protocol, int error)
{
	struct facts f = {
		.cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter),
		.attribution = ATTRIBUTION_CONNECT,
		.direction = DIRECTION_OUTBOUND,
		.protocol = protocol,
		.netns = netns_of(sk),
	};
	struct connection_event *e;

	endpoints_of(sk, &f.ends);
	if (wanted_remote(address, &f.ends) == AF_UNSPEC)
		return 0; /* it did not name a peer */
	owner_is_current(&f.owner);
	if (f.cookie) {
		/* A UDP socket that is connected keeps that number for itself. */
		if (protocol == IPPROTO_UDP && bpf_map_lookup_elem(&udp_connections, &f.cookie))
			next_attempt(f.cookie, 0);
		f.attempt = attempt_of(f.cookie);
		next_attempt(f.cookie, 0);
	}
	e = new_event(STATE_FAILED, &f, bpf_ktime_get_boot_ns());
	if (!e)
		return 0;
	e->return_code = error;
	e->known = KNOWN_CODE;
	submit(e);
	return 0;
}

/* These do not end an attempt: it goes on, or it never was one. */
static __always_inline bool is_undecided(long ret)
{
	return ret == -EINPROGRESS || ret == -EALREADY || ret == -EISCONN || ret == -EINTR ||
	       (ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK);
}
