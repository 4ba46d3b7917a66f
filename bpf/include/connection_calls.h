/* The calls connect() and accept(), told by their return. */
#pragma once

#include "connection.h"

/* NULL if the file is no socket. */
static __always_inline struct socket *socket_of_file(const struct file *file)
{
	const struct inode *inode = READ_POINTER(struct file, file, f_inode);

	if ((READ(struct inode, inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	return READ_POINTER(struct file, file, private_data);
}

/* The file behind a descriptor of the current process, or NULL. */
static __always_inline struct file *file_of_fd(int fd)
{
	struct file **slots;
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
	return READ_POINTER(struct hlist_head, slots + fd, first); /* which is just a pointer */
}

/* The struct socket behind a file descriptor of the current process. */
static __always_inline struct socket *socket_of_fd(int fd)
{
	struct file *file = file_of_fd(fd);

	return file ? socket_of_file(file) : NULL;
}

/* The same of a call that has taken it for a socket. Its inode is in no cache: that
 * the file is still a socket is told by the way back.
 */
static __always_inline struct socket *socket_of_call(int fd)
{
	struct file *file = file_of_fd(fd);
	struct socket *socket = file ? READ_POINTER(struct file, file, private_data) : NULL;

	return socket && READ_POINTER(struct socket, socket, file) == file ? socket : NULL;
}

/* The TCP socket that does the work of a socket: of MPTCP, its first subflow,
 * which is there from listen() or connect() on.
 */
static __always_inline struct sock *sock_of(const struct socket *socket)
{
	struct sock *sk = socket ? READ_POINTER(struct socket, socket, sk) : NULL;

	if (sk && bpf_core_type_exists(struct mptcp_sock) && READ(struct sock, sk, sk_protocol) == IPPROTO_MPTCP)
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

/* A connect() that is being executed. */
struct connect_call {
	u64 address; /* the caller's struct sockaddr */
	int fd;
	u8 active; /* it has not returned yet */
};

/* The arguments of a call are in the registers that the thread had when it called,
 * and these can be read (Linux 5.15, on processors whose registers are known here).
 */
const volatile bool reads_registers = false;
const volatile u32 connect_number = 0; /* of the system call */

struct pt_regs___arm64 {
	u64 regs[31];
	u64 orig_x0;
	s32 syscallno;
} __attribute__((preserve_access_index));

/* Without reads_registers: by thread. The entry is used again by the next call, which
 * costs less than to make and delete one each time. Old ones may go.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct connect_call);
} connect_calls SEC(".maps");

static __always_inline struct connect_call *noted_call(void)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct connect_call *call = bpf_map_lookup_elem(&connect_calls, &thread);

	return call && call->active ? call : NULL;
}

static __always_inline void note_call(const struct connect_call *call)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct connect_call *noted = bpf_map_lookup_elem(&connect_calls, &thread);

	if (noted)
		*noted = *call;
	else if (bpf_map_update_elem(&connect_calls, &thread, call, BPF_ANY))
		count(COUNTER_MAP_FULL);
}

/* The call that this thread executes. */
static __always_inline bool read_call(struct connect_call *call)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	struct pt_regs___arm64 *of_arm64;

	if (bpf_core_field_exists(regs->orig_ax)) {
		call->fd = regs->di;
		call->address = regs->si;
		return regs->orig_ax == connect_number;
	}
	of_arm64 = (void *)regs;
	barrier_var(of_arm64); /* its fields must not be computed where there are none */
	call->fd = of_arm64->orig_x0;
	call->address = of_arm64->regs[1];
	return of_arm64->syscallno == connect_number;
}

/* False: it is no connect(), but io_uring or TCP fast open. */
static __always_inline bool is_in_connect(void)
{
	struct connect_call call;

	return reads_registers ? read_call(&call) : !!noted_call();
}

/* The threads whose connect() has begun a TCP connection, by their task: of one that
 * then succeeds, inet_sock_set_state has told all, and its return need not find out by
 * the descriptor what was connected. Threads that share a slot take it from each other,
 * which costs time, not truth; who has it leaves it when that connect() returns, or, if
 * that return was not seen (sys_exit_connect is attached after inet_sock_set_state, and
 * the kernel skips programs at times), when it connects by UDP.
 */
#define CALLERS_BITS 10

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << CALLERS_BITS);
	__type(key, u32);
	__type(value, u64);
} tcp_callers SEC(".maps");

static __always_inline u64 *slot_of_caller(u64 task)
{
	u32 i = task * GOLDEN_RATIO >> (64 - CALLERS_BITS);

	return bpf_map_lookup_elem(&tcp_callers, &i);
}

static __always_inline void note_tcp_caller(void)
{
	u64 task = bpf_get_current_task();
	u64 *slot = reads_registers && is_in_connect() ? slot_of_caller(task) : NULL;

	if (slot)
		*slot = task;
}

/* Whether the current thread was noted; it is no longer then. */
static __always_inline bool take_tcp_caller(void)
{
	u64 task, *slot;

	if (!reads_registers)
		return false;
	task = bpf_get_current_task();
	slot = slot_of_caller(task);
	if (!slot || *slot != task)
		return false;
	*slot = 0;
	return true;
}

static __always_inline bool connect_ends(struct connect_call *call)
{
	struct connect_call *noted;

	if (reads_registers)
		return read_call(call);
	noted = noted_call();
	if (!noted)
		return false;
	*call = *noted;
	noted->active = 0;
	return true;
}

/* These do not end an attempt: it goes on, or it never was one. */
static __always_inline bool is_undecided(long ret)
{
	return ret == -EINPROGRESS || ret == -EALREADY || ret == -EISCONN || ret == -EINTR ||
	       (ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK);
}
