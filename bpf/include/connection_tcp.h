/* TCP connections, told by the changes of state of their sockets. */
#pragma once

#include "connection_reset.h"

/* The ends are read from the socket if they are not given. */
static __always_inline struct connection_event *new_tcp_event(const struct sock *sk, u8 state,
							       const struct connection *c,
							       const struct endpoints *given)
{
	struct endpoints ends = {};
	struct known_connection known = {
		.cookie = c->cookie,
		.attempt = c->attempt,
		.owner = &c->owner,
		.attribution = c->attribution,
		.reset_by = c->reset_by,
		.direction = c->direction,
		.protocol = IPPROTO_TCP,
		.netns = netns_of(sk),
		.ends = &ends,
	};

	if (given)
		ends = *given;
	else
		endpoints_of(sk, &ends);
	return new_event(state, &known);
}

static __always_inline void tcp_established(const struct sock *sk, const struct connection *c)
{
	struct connection_event *e = new_tcp_event(sk, STATE_ESTABLISHED, c, NULL);

	if (!e)
		return;
	e->time_ns = c->established_ns;
	e->return_code = 0;
	e->known = KNOWN_CODE;
	submit(e);
}

/* An error of 0 is not known: the process gave up before there was an outcome. */
static __always_inline void tcp_failed(const struct sock *sk, const struct connection *c,
				       const struct endpoints *ends, int error)
{
	struct connection_event *e = new_tcp_event(sk, STATE_FAILED, c, ends);

	if (!e)
		return;
	if (error) {
		e->return_code = -error;
		e->known = KNOWN_CODE;
	}
	submit(e);
}

/* The sequence numbers that left the socket, without that of a FIN: bytes_acked
 * is 64 bits wide, and what is not acknowledged yet is less than 4 GiB. The FIN
 * takes the last number, so it was sent if nothing is left to send. The SYN of
 * a connect takes one that bytes_acked counts; that of an accept is not counted.
 */
static __always_inline u64 numbers_sent(const struct tcp_sock *tp, int state)
{
	u32 next = BPF_CORE_READ(tp, snd_nxt);
	u64 sent = BPF_CORE_READ(tp, bytes_acked) + (u32)(next - BPF_CORE_READ(tp, snd_una));
	bool fin_queued = state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING ||
			  state == TCP_LAST_ACK;

	return sent && fin_queued && next == BPF_CORE_READ(tp, write_seq) ? sent - 1 : sent;
}

/* Payload that left the socket. (tcp_sock.bytes_sent counts a segment again
 * whenever the host itself fails to send it.)
 */
static __always_inline u64 payload_sent(const struct tcp_sock *tp, const struct connection *c, int oldstate)
{
	u64 sent = numbers_sent(tp, oldstate);

	return sent && c->direction == DIRECTION_OUTBOUND ? sent - 1 : sent;
}

/* bytes_received counts the FIN of the peer as a byte (tcp_rcv_nxt_update by
 * end_seq); SOCK_DONE is set when that FIN was taken in, and only then.
 */
static __always_inline void tcp_closed(const struct sock *sk, const struct connection *c, int oldstate)
{
	const struct tcp_sock *tp = (const struct tcp_sock *)sk;
	struct connection_event *e = new_tcp_event(sk, STATE_CLOSED, c, NULL);
	u64 done;

	if (!e)
		return;
	done = has_flag(sk, bpf_core_enum_value(enum sock_flags, SOCK_DONE));
	e->duration_ns = e->time_ns - c->established_ns;
	e->bytes_sent = payload_sent(tp, c, oldstate);
	e->bytes_received = BPF_CORE_READ(tp, bytes_received);
	if (e->bytes_received >= done)
		e->bytes_received -= done;
	e->retransmits = BPF_CORE_READ(tp, total_retrans);
	e->rtt_us = BPF_CORE_READ(tp, srtt_us) >> 3;
	e->return_code = -BPF_CORE_READ(sk, sk_err);
	e->known = KNOWN_CODE | KNOWN_BYTES | KNOWN_TCP | (c->late ? 0 : KNOWN_DURATION);
	submit(e);
}

static __always_inline void remember(const struct sock *sk, const struct connection *c)
{
	u64 key = (u64)sk;

	if (bpf_map_update_elem(&connections, &key, c, BPF_ANY))
		count(COUNTER_MAP_FULL);
}

/* Who listens where this socket was accepted. Who does now comes before who did
 * so last.
 */
static __always_inline struct listening *listener_of(const struct sock *sk)
{
	struct listener_key key = { .netns = netns_of(sk) };
	struct listening *l, *best = NULL;
	struct endpoints ends = {};
	int i;

	endpoints_of(sk, &ends);
	key.ip = ends.local;
	key.port = ends.local_port;
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
static __always_inline void owner_is_listener(const struct sock *sk, struct connection *c)
{
	struct listening *l = listener_of(sk);

	if (!l || l->shared)
		return;
	c->owner = l->owner;
	c->attribution = ATTRIBUTION_LISTENER;
}

static __always_inline struct listening *listening_of(const struct sock *sk, struct listener_key *key)
{
	struct endpoints ends = {};

	endpoints_of(sk, &ends);
	key->ip = ends.local;
	key->port = ends.local_port;
	key->netns = netns_of(sk);
	return bpf_map_lookup_elem(&listeners, key);
}

static __always_inline bool is_new_listener(const struct sock *sk, u8 found)
{
	u64 key = (u64)sk;

	return !bpf_map_update_elem(&listening_sockets, &key, &found, BPF_NOEXIST);
}

static __always_inline void on_listen(const struct sock *sk)
{
	struct listening l = { .sockets = 1 };
	struct listener_key key;
	struct listening *same = listening_of(sk, &key);

	if (!is_new_listener(sk, 0))
		return;
	owner_is_current(&l.owner);
	if (same && same->sockets) {
		if (same->owner.process.pid != l.owner.process.pid)
			same->shared = 1;
		__sync_fetch_and_add(&same->sockets, 1);
		return;
	}
	bpf_map_update_elem(&listeners, &key, &l, BPF_ANY);
}

static __always_inline void on_listen_end(const struct sock *sk)
{
	struct listener_key key;
	struct listening *l = listening_of(sk, &key);
	u64 socket = (u64)sk;

	if (!bpf_map_delete_elem(&listening_sockets, &socket) && l && l->sockets)
		__sync_fetch_and_add(&l->sockets, -1);
}

/* The first subflow of the MPTCP connection that this socket joins. The kernel
 * opens and accepts further subflows by itself: they belong to the process of the
 * first, not to the kernel's thread.
 */
static __always_inline struct connection *first_subflow_of(const struct sock *sk)
{
	struct mptcp_subflow_context *subflow;
	struct mptcp_sock *msk;
	u64 first;

	if (!bpf_core_type_exists(struct mptcp_sock) || !BPF_CORE_READ((const struct tcp_sock *)sk, is_mptcp))
		return NULL;
	subflow = BPF_CORE_READ((const struct inet_connection_sock *)sk, icsk_ulp_data);
	msk = (struct mptcp_sock *)BPF_CORE_READ(subflow, conn);
	first = (u64)BPF_CORE_READ(msk, first);
	return first == (u64)sk ? NULL : bpf_map_lookup_elem(&connections, &first);
}

static __always_inline void on_connect(struct sock *sk)
{
	struct connection c = {
		.direction = DIRECTION_OUTBOUND,
		.attribution = ATTRIBUTION_CONNECT,
		.announced = 1,
	};
	u64 thread = bpf_get_current_pid_tgid();
	struct connection *first = first_subflow_of(sk);
	struct connect_call *call;

	c.cookie = cookie_of(sk);
	c.attempt = attempt_of(c.cookie);
	if (first) {
		c.owner = first->owner;
		c.attribution = first->attribution;
	} else {
		owner_is_current(&c.owner);
	}
	remember(sk, &c);
	call = bpf_map_lookup_elem(&connect_calls, &thread);
	if (call && (call->sk == (u64)sk || call->mptcp)) {
		call->sk = (u64)sk;
		call->started = 1;
	}
}

static __always_inline void on_established(struct sock *sk, int oldstate)
{
	u64 key = (u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &key);
	struct connection new = { .direction = DIRECTION_INBOUND }, *first;

	/* Also accepted before the handshake was complete (TCP fast open). */
	if (c && (oldstate == TCP_SYN_SENT || oldstate == TCP_SYN_RECV)) {
		c->established_ns = bpf_ktime_get_boot_ns();
		if (c->direction == DIRECTION_OUTBOUND || may_announce(c))
			tcp_established(sk, c);
		return;
	}
	new.cookie = cookie_of(sk);
	new.established_ns = bpf_ktime_get_boot_ns();
	if (oldstate == TCP_SYN_SENT) {
		/* connect() came before this program, and no iterator yet. */
		new.direction = DIRECTION_OUTBOUND;
		new.announced = 1;
		tcp_established(sk, &new);
	} else if ((first = first_subflow_of(sk)) && first->attribution != ATTRIBUTION_NONE) {
		new.owner = first->owner;
		new.attribution = first->attribution;
		new.announced = 1;
		tcp_established(sk, &new);
	}
	remember(sk, &new);
}

/* An accept of what inet_sock_set_state has not told of: the connection was
 * established before this program started, or its handshake is not complete
 * yet (TCP fast open), or there was no room for it in the map.
 */
static __always_inline void tcp_accepted_late(const struct sock *sk)
{
	struct connection c = {
		.direction = DIRECTION_INBOUND,
		.attribution = ATTRIBUTION_ACCEPT,
	};
	int state = BPF_CORE_READ(sk, __sk_common.skc_state);
	u64 key = (u64)sk;

	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || state == TCP_CLOSE || state == TCP_LISTEN)
		return;
	c.cookie = number_of(sk);
	owner_is_current(&c.owner);
	if (state != TCP_SYN_RECV) {
		c.established_ns = bpf_ktime_get_boot_ns();
		c.announced = 1;
		c.late = 1;
	}
	remember(sk, &c);
	/* It may have ended before the entry was there. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE)
		bpf_map_delete_elem(&connections, &key);
	else if (c.late)
		tcp_established(sk, &c);
}

static __always_inline void on_close(const struct sock *sk, int oldstate)
{
	u64 key = (u64)sk;
	u64 thread = bpf_get_current_pid_tgid();
	struct connection *c = bpf_map_lookup_elem(&connections, &key);
	struct connect_call *call;
	int error;

	if (!c)
		return;
	if (oldstate == TCP_SYN_SENT || !c->established_ns) {
		error = BPF_CORE_READ(sk, sk_err);
		call = error ? NULL : bpf_map_lookup_elem(&connect_calls, &thread);
		if (call && call->sk == key) {
			call->failed = 1;
			endpoints_of(sk, &call->ends);
			return;
		}
		c->reset_by = reset_by_whom(sk, c, oldstate);
		tcp_failed(sk, c, NULL, error);
	} else {
		if (may_announce(c)) {
			if (c->attribution == ATTRIBUTION_NONE)
				owner_is_listener(sk, c);
			tcp_established(sk, c);
		}
		c->reset_by = reset_by_whom(sk, c, oldstate);
		tcp_closed(sk, c, oldstate);
	}
	/* The process still has the socket and may connect it again. */
	if (c->direction == DIRECTION_OUTBOUND && BPF_CORE_READ(sk, sk_socket))
		next_attempt(c->cookie);
	bpf_map_delete_elem(&connections, &key);
}
