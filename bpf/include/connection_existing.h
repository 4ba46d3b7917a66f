/* Sockets that were there before this program. When all hooks are attached, three
 * iterators go through the open files of all processes, and so through all
 * network namespaces:
 *
 *   existing_listeners    who listens
 *   existing_connections  puts what is not in the maps yet into them; who gets
 *                         the connection depends on who listens
 *   existing_told         tells of it, when all who hold a socket were seen
 *
 * What happens meanwhile is told by the hooks, which find these entries or make
 * their own: an iterator never replaces one.
 *
 * The owner is the process that holds the socket. Where several do, it is the
 * one that all others descend from: they got it by fork. Where there is no such
 * process, the owner is not known. Processes are visited by ascending pid, so
 * that after the pids of a host began again from 1, a child may be visited before
 * its parent; then the owner is not known either.
 */
#pragma once

#include "connection_tcp.h"
#include "connection_udp.h"

#define MAX_GENERATIONS 32

static __always_inline void owner_is(struct owner *owner, struct task_struct *task)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

	process_is(&owner->process, task);
	owner->uid = BPF_CORE_READ(task, cred, uid.val);
	owner->cgroup_id = BPF_CORE_READ(cgroup, kn, id);
	owner->cgroups = cgroups_of(cgroup);
	BPF_CORE_READ_STR_INTO(&owner->command, task, group_leader, comm);
	tell_names(&owner->process, address_of(task), owner->cgroup_id, (u64)BPF_CORE_READ(cgroup, kn));
}

/* True for the process itself and for all that it forked. */
static __always_inline bool belongs_to(struct task_struct *task, u32 pid)
{
	u32 current;
	int i;

	for (i = 0; i < MAX_GENERATIONS; i++) {
		current = BPF_CORE_READ(task, tgid);
		if (current == pid)
			return true;
		if (current <= 1)
			return false;
		task = BPF_CORE_READ(task, real_parent);
	}
	return false;
}

/* The process holds a socket that was found with this owner before. */
static __always_inline void is_held_too(struct owner *owner, struct task_struct *task)
{
	if (owner->process.pid && !belongs_to(task, owner->process.pid))
		__builtin_memset(owner, 0, sizeof(*owner));
}

/* Gives a socket its cookie. The two helpers came with Linux 5.11 and 5.12, as
 * bpf_check_mtu did; on an older kernel it may have none.
 */
static __always_inline u64 cookie_of_file(struct file *file, const struct sock *sk)
{
	struct socket *socket;
	struct sock *typed;

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_check_mtu)) {
		socket = bpf_sock_from_file(file);
		if (socket) {
			typed = socket->sk;
			if (typed && address_of(typed) == (u64)sk)
				return bpf_get_socket_cookie(typed);
		}
	}
	return BPF_CORE_READ(sk, __sk_common.skc_cookie.counter); /* a subflow of MPTCP, too */
}

/* Where several hold it and none is known to own it, nobody owns what they do not
 * accept either.
 */
static __always_inline void listener_exists(const struct sock *sk, struct file *file, struct task_struct *task)
{
	struct connection new = {
		.facts = { .attribution = ATTRIBUTION_EXISTING, .protocol = IPPROTO_TCP },
		.established_ns = bpf_ktime_get_boot_ns(),
		.late = 1,
	};
	u64 key = (u64)sk;
	struct connection *c = connection_of(key);
	struct listening *l;

	if (c) {
		if (c->facts.attribution != ATTRIBUTION_EXISTING)
			return;
		is_held_too(&c->facts.owner, task);
		l = c->facts.owner.process.pid ? NULL : listening_with(&c->facts);
		if (l)
			l->shared = 1;
		return;
	}
	owner_is(&new.facts.owner, task);
	new.facts.cookie = cookie_of_listener(sk);
	if (!new.facts.cookie)
		new.facts.cookie = cookie_of_file(file, BPF_CORE_READ(socket_of_file(file), sk));
	if (!new.facts.cookie)
		new.facts.cookie = number_without_cookie();
	new.facts.netns = netns_of(sk);
	endpoints_of(sk, &new.facts.ends);
	if (!remember(key, &new, BPF_NOEXIST))
		return;
	/* It may have ended before the entry was there. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN) {
		remember_ends(key, &new.facts);
		add_listener(&new.facts);
	} else {
		forget(key);
	}
}

static __always_inline void listener_exists_told(const struct sock *sk)
{
	struct connection *c = connection_of((u64)sk);

	if (c && c->facts.attribution == ATTRIBUTION_EXISTING && may_announce(c))
		tell_listening(c);
}

/* Who opened a connection. Of a connect the kernel counts one more sequence number
 * than bytes of payload, of an accept just as many (see numbers_sent). Where
 * its counters do not say, because the host itself failed to send a segment:
 * inbound if a process listens on the local address and port.
 */
static __always_inline u8 direction_of(const struct sock *sk, const struct facts *f, int state)
{
	const struct tcp_sock *tp = (const struct tcp_sock *)sk;
	struct tcp_numbers n = {
		.bytes_acked = BPF_CORE_READ(tp, bytes_acked),
		.snd_nxt = BPF_CORE_READ(tp, snd_nxt),
		.snd_una = BPF_CORE_READ(tp, snd_una),
		.write_seq = BPF_CORE_READ(tp, write_seq),
	};
	u64 numbers = numbers_sent(&n, state);
	u64 payload = BPF_CORE_READ(tp, bytes_sent) - BPF_CORE_READ(tp, bytes_retrans);

	if (state == TCP_SYN_SENT || numbers == payload + 1)
		return DIRECTION_OUTBOUND;
	if (state == TCP_SYN_RECV || numbers == payload)
		return DIRECTION_INBOUND;
	return listener_of(f) ? DIRECTION_INBOUND : DIRECTION_OUTBOUND;
}

static __always_inline void tcp_exists(const struct sock *sk, u64 cookie, int state, struct task_struct *task)
{
	struct connection new = { .facts = { .attribution = ATTRIBUTION_EXISTING, .protocol = IPPROTO_TCP } };
	u64 key = (u64)sk;
	struct connection *c = connection_of(key);

	if (c) {
		if (c->facts.attribution == ATTRIBUTION_EXISTING)
			is_held_too(&c->facts.owner, task);
		return;
	}
	owner_is(&new.facts.owner, task);
	new.facts.cookie = cookie ? cookie : number_without_cookie();
	new.facts.netns = netns_of(sk);
	endpoints_of(sk, &new.facts.ends);
	new.facts.direction = direction_of(sk, &new.facts, state);
	if (state == TCP_SYN_SENT) {
		new.announced = 1; /* as in on_connect: its outcome will be told */
	} else if (state != TCP_SYN_RECV) {
		new.established_ns = bpf_ktime_get_boot_ns();
		new.late = 1;
	}
	if (!remember(key, &new, BPF_NOEXIST))
		return;
	/* It may have ended before the entry was there. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE)
		forget(key);
}

static __always_inline void tcp_exists_told(const struct sock *sk, int state)
{
	u64 key = (u64)sk;
	struct connection *c = connection_of(key);

	if (!c || c->facts.attribution != ATTRIBUTION_EXISTING)
		return;
	/* inet_sock_set_state comes before the state is written, so that the check
	 * after the insert may have been too early.
	 */
	if (state == TCP_CLOSE) {
		forget(key);
	} else if (c->established_ns && may_announce(c)) {
		remember_ends(key, &c->facts);
		tcp_established(c);
	}
}

/* The iterator holds the file, so the socket is not released meanwhile. */
static __always_inline void udp_exists(const struct sock *sk, u64 cookie, struct task_struct *task)
{
	struct udp_connection new = {
		.facts = { .cookie = cookie, .attribution = ATTRIBUTION_EXISTING, .direction = DIRECTION_OUTBOUND, .protocol = IPPROTO_UDP },
	};
	struct udp_connection *c = bpf_map_lookup_elem(&udp_connections, &cookie);

	if (c) {
		if (c->facts.attribution == ATTRIBUTION_EXISTING)
			is_held_too(&c->facts.owner, task);
		return;
	}
	owner_is(&new.facts.owner, task);
	new.established_ns = bpf_ktime_get_boot_ns();
	new.facts.netns = netns_of(sk);
	endpoints_of(sk, &new.facts.ends);
	if (bpf_map_update_elem(&udp_connections, &cookie, &new, BPF_NOEXIST) &&
	    !bpf_map_lookup_elem(&udp_connections, &cookie))
		count(COUNTER_MAP_FULL);
}

static __always_inline void udp_exists_told(u64 cookie)
{
	struct udp_connection *c = bpf_map_lookup_elem(&udp_connections, &cookie);

	if (!c || c->announced)
		return;
	remember_udp_ends(&c->facts);
	udp_established(c);
}

enum pass {
	PASS_LISTENERS,
	PASS_CONNECTIONS,
	PASS_TOLD,
};

static __always_inline int socket_exists(struct bpf_iter__task_file *ctx, enum pass pass)
{
	/* Copied before they are tested: what is read from the context again is
	 * not known to be tested.
	 */
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct sock *sk;
	u16 protocol;
	u64 cookie;
	int state;

	if (!task || !file)
		return 0;
	sk = sock_of(socket_of_file(file));
	if (!sk || !is_ip(sk))
		return 0;
	protocol = BPF_CORE_READ(sk, sk_protocol);
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (protocol == IPPROTO_TCP && state == TCP_LISTEN) {
		if (pass == PASS_LISTENERS)
			listener_exists(sk, file, task);
		else if (pass == PASS_TOLD)
			listener_exists_told(sk);
	} else if (protocol == IPPROTO_TCP) {
		if (pass == PASS_CONNECTIONS && state != TCP_CLOSE)
			tcp_exists(sk, cookie_of_file(file, sk), state, task);
		else if (pass == PASS_TOLD)
			tcp_exists_told(sk, state);
	} else if (protocol == IPPROTO_UDP && state == TCP_ESTABLISHED && pass != PASS_LISTENERS) {
		/* Its end is told by the cookie. */
		cookie = cookie_of_file(file, sk);
		if (cookie && pass == PASS_CONNECTIONS)
			udp_exists(sk, cookie, task);
		else if (cookie)
			udp_exists_told(cookie);
	}
	return 0;
}
