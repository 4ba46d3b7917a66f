/* TCP sockets that listen: "listening" when listen() has succeeded, "stopped" when
 * they do so no more.
 *
 * listen() changes the state to LISTEN before it takes its port, and back to CLOSE
 * if it cannot have it. So the change of state only notes the socket, and the
 * return of the call tells of it: then it has its port. A second listen() changes
 * the backlog and no state, and is not told.
 *
 * While it listens, the socket is among the connections, without a direction and
 * a remote end. Its owner is the process that called listen(), whoever else has
 * the socket later.
 */
#pragma once

#include "connection.h"

/* The socket that a thread's listen() is about, until that returns. What does not
 * return as a call (io_uring) leaves its entry behind: old ones may go.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u64);
} listen_calls SEC(".maps");

struct listener_key {
	struct address ip;
	u32 netns;
	u32 port;
};

struct listening {
	struct owner owner;
	u32 sockets; /* with SO_REUSEPORT several sockets share address and port */
	u32 shared;  /* ... and belong to different processes: the owner is not known */
};

/* Who owns what nobody accepts. An entry stays when its last socket closes while
 * connections wait to be accepted, as these are ended after that: such entries are
 * old soon, and may go.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct listener_key);
	__type(value, struct listening);
} listeners SEC(".maps");

static __always_inline struct listener_key key_of_listener(const struct facts *f)
{
	return (struct listener_key){ .netns = f->netns, .ip = f->ends.local, .port = f->ends.local_port };
}

/* Who listens where these ends were accepted. Who does now comes before who did
 * so last.
 */
static __always_inline struct listening *listener_of(const struct facts *f)
{
	struct listener_key key = key_of_listener(f);
	struct listening *l, *best = NULL;
	int i;

	for (i = 0; i < 3; i++) {
		if (i == 1)
			__builtin_memset(&key.ip, 0, sizeof(key.ip)); /* listens on :: */
		if (i == 2)
			address_from_v4(&key.ip, 0); /* listens on 0.0.0.0 */
		l = bpf_map_lookup_elem(&listeners, &key);
		if (l && (!best || (l->sockets && !best->sockets)))
			best = l;
	}
	return best;
}

/* Fills in the process that listens, if there is just one such process. */
static __always_inline void owner_is_listener(struct facts *f)
{
	struct listening *l = listener_of(f);

	if (!l || l->shared)
		return;
	f->owner = l->owner;
	f->attribution = ATTRIBUTION_LISTENER;
}

/* All that listen on the address and port of this one. */
static __always_inline struct listening *listening_with(const struct facts *f)
{
	struct listener_key key = key_of_listener(f);

	return bpf_map_lookup_elem(&listeners, &key);
}

static __always_inline void add_listener(const struct facts *f)
{
	struct listener_key key = key_of_listener(f);
	struct listening *same = bpf_map_lookup_elem(&listeners, &key);
	struct listening l = { .owner = f->owner, .sockets = 1 };

	if (same && same->sockets) {
		if (same->owner.process.pid != f->owner.process.pid)
			same->shared = 1;
		__sync_fetch_and_add(&same->sockets, 1);
		return;
	}
	bpf_map_update_elem(&listeners, &key, &l, BPF_ANY);
}

static __always_inline void remove_listener(const struct sock *sk, const struct facts *f)
{
	struct listener_key key = key_of_listener(f);
	struct listening *l = bpf_map_lookup_elem(&listeners, &key);

	if (!l || !l->sockets)
		return;
	__sync_fetch_and_add(&l->sockets, -1);
	if (!l->sockets && !sk->sk_ack_backlog)
		bpf_map_delete_elem(&listeners, &key);
}

static __always_inline void tell_listening(const struct connection *c)
{
	struct connection_event *e = new_event(STATE_LISTENING, &c->facts, c->established_ns);

	if (e)
		submit(e);
}

static __always_inline void tell_stopped(const struct connection *c)
{
	struct end_event *e = new_end(STATE_STOPPED, &c->facts, bpf_ktime_get_boot_ns());

	if (!e)
		return;
	if (!c->late) {
		e->duration_ns = e->event.time_ns - c->established_ns;
		e->event.known = KNOWN_DURATION;
	}
	submit(e);
}

/* The cookie that makes the id, or 0. Of MPTCP, a subflow listens for the socket
 * that the process has: a change of state can give the former a cookie, an iterator
 * the latter. As neither asks for one where the other has, the id stays the same.
 */
static __always_inline u64 cookie_of_listener(const struct sock *sk)
{
	const struct tcp_sock *tp = (const struct tcp_sock *)sk;
	struct mptcp_subflow_context *subflow;
	u64 cookie = 0;

	if (bpf_core_type_exists(struct mptcp_sock) && BPF_CORE_READ(tp, is_mptcp)) {
		subflow = BPF_CORE_READ(tp, inet_conn.icsk_ulp_data);
		cookie = BPF_CORE_READ(subflow, conn, __sk_common.skc_cookie.counter);
	}
	return cookie ? cookie : BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
}

/* CLOSE -> LISTEN. What is in the map is another socket, which had this memory. */
static __always_inline void on_listen(u64 key, struct sock *sk)
{
	struct connection *missed = connection_of(key);
	u64 thread = bpf_get_current_pid_tgid();

	if (missed) {
		end_was_missed(missed);
		forget(key);
	}
	if (has_cookie_helper)
		bpf_get_socket_cookie(sk); /* which the hook of the call can only read */
	bpf_map_update_elem(&listen_calls, &thread, &key, BPF_ANY);
}

/* LISTEN -> CLOSE. One that is not in the map could not have its port. */
static __always_inline void on_listen_end(u64 key, const struct sock *sk)
{
	struct connection *c = connection_of(key);

	if (!c)
		return;
	if (may_announce(c)) /* it was found, and ends before it was told of */
		tell_listening(c);
	tell_stopped(c);
	remove_listener(sk, &c->facts);
	if (!sk->sk_shutdown) /* the process still has it, and may let it listen again */
		next_attempt(c->facts.cookie, 0);
	forget_ends(&c->facts);
	forget(key);
}

/* In the process that listens, which has the socket. */
static __always_inline void on_listening(const struct sock *sk)
{
	struct connection c = {
		.facts = { .attribution = ATTRIBUTION_LISTENER, .protocol = IPPROTO_TCP },
		.established_ns = bpf_ktime_get_boot_ns(),
		.announced = 1,
	};
	u64 key = (u64)sk;

	c.facts.cookie = cookie_of_listener(sk);
	if (!c.facts.cookie)
		c.facts.cookie = number_without_cookie();
	c.facts.attempt = attempt_of(c.facts.cookie);
	c.facts.netns = netns_of(sk);
	endpoints_of(sk, &c.facts.ends);
	owner_is_current(&c.facts.owner);
	if (!remember(key, &c, BPF_NOEXIST))
		return;
	/* Another thread may have ended it before the entry was there. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN) {
		forget(key);
		return;
	}
	remember_ends(key, &c.facts);
	add_listener(&c.facts);
	tell_listening(&c);
}

/* A listen() by io_uring (Linux 6.11) that has succeeded: it may have run in another
 * thread, and is told when it completes.
 */
static __always_inline bool is_listen_request(struct io_kiocb *req)
{
	return bpf_core_enum_value_exists(enum io_uring_op, IORING_OP_LISTEN) &&
	       BPF_CORE_READ(req, opcode) == bpf_core_enum_value(enum io_uring_op, IORING_OP_LISTEN) &&
	       !BPF_CORE_READ(req, cqe.res);
}

/* The listen() of this thread has returned. */
static __always_inline void on_listen_call(long ret)
{
	u64 thread = bpf_get_current_pid_tgid(), *noted = bpf_map_lookup_elem(&listen_calls, &thread), sk;

	if (!noted)
		return;
	sk = *noted;
	bpf_map_delete_elem(&listen_calls, &thread);
	if (!ret)
		on_listening((const struct sock *)sk);
}
