/* TCP connections, told by the changes of state of their sockets. */
#pragma once

#include "connection_calls.h"
#include "connection_listen.h"
#include "connection_reset.h"

static __always_inline void tcp_established(const struct connection *c)
{
	struct connection_event *e = new_event(STATE_ESTABLISHED, &c->facts, c->established_ns);

	if (!e)
		return;
	e->known = KNOWN_CODE;
	submit(e);
}

/* An error of 0 is not known: the process gave up before there was an outcome. */
static __always_inline void tcp_failed(const struct connection *c, int error)
{
	struct connection_event *e = new_event(STATE_FAILED, &c->facts, bpf_ktime_get_boot_ns());

	if (!e)
		return;
	if (error) {
		e->return_code = -error;
		e->known = KNOWN_CODE;
	}
	submit(e);
}

/* Fields of a struct tcp_sock that tell how much was sent. */
struct tcp_numbers {
	u64 bytes_acked;
	u32 snd_nxt;
	u32 snd_una;
	u32 write_seq;
};

/* The sequence numbers that left the socket, without that of a FIN: bytes_acked
 * is 64 bits wide, and what is not acknowledged yet is less than 4 GiB. The FIN
 * takes the last number, so it was sent if nothing is left to send. The SYN of
 * a connect takes one that bytes_acked counts; that of an accept is not counted.
 */
static __always_inline u64 numbers_sent(const struct tcp_numbers *n, int state)
{
	u64 sent = n->bytes_acked + (u32)(n->snd_nxt - n->snd_una);
	bool fin_queued = state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_CLOSING ||
			  state == TCP_LAST_ACK;

	return sent && fin_queued && n->snd_nxt == n->write_seq ? sent - 1 : sent;
}

/* Payload that left the socket. (tcp_sock.bytes_sent counts a segment again
 * whenever the host itself fails to send it.)
 */
static __always_inline u64 payload_sent(const struct tcp_sock *tp, const struct connection *c, int oldstate)
{
	struct tcp_numbers n = {
		.bytes_acked = tp->bytes_acked,
		.snd_nxt = tp->snd_nxt,
		.snd_una = tp->snd_una,
		.write_seq = tp->write_seq,
	};
	u64 sent = numbers_sent(&n, oldstate);

	return sent && c->facts.direction == DIRECTION_OUTBOUND ? sent - 1 : sent;
}

/* bytes_received counts the FIN of the peer as a byte (tcp_rcv_nxt_update by
 * end_seq); SOCK_DONE is set when that FIN was taken in, and only then.
 */
static __always_inline void tcp_closed(const struct sock *sk, const struct tcp_sock *tp, const struct connection *c, int oldstate)
{
	struct end_event *e = new_end(STATE_CLOSED, &c->facts, bpf_ktime_get_boot_ns());
	u64 done;

	if (!e)
		return;
	done = has_flag(sk, bpf_core_enum_value(enum sock_flags, SOCK_DONE));
	e->duration_ns = e->event.time_ns - c->established_ns;
	e->traffic.bytes_sent = payload_sent(tp, c, oldstate);
	e->traffic.bytes_received = tp->bytes_received;
	if (e->traffic.bytes_received >= done)
		e->traffic.bytes_received -= done;
	e->retransmits = tp->total_retrans;
	e->rtt_us = tp->srtt_us >> 3;
	e->event.return_code = -sk->sk_err;
	e->event.known = KNOWN_CODE | KNOWN_BYTES | KNOWN_TCP | (c->late ? 0 : KNOWN_DURATION);
	submit(e);
}

/* The first subflow of the MPTCP connection that this socket joins. The kernel
 * opens and accepts further subflows by itself: they belong to the process of the
 * first, not to the kernel's thread.
 */
static __always_inline struct connection *first_subflow_of(const struct tcp_sock *tp)
{
	struct mptcp_subflow_context *subflow;
	struct mptcp_sock *msk;
	u64 first;

	if (!bpf_core_type_exists(struct mptcp_sock) || !unlikely(tp->is_mptcp))
		return NULL;
	subflow = BPF_CORE_READ(&tp->inet_conn, icsk_ulp_data);
	msk = (struct mptcp_sock *)BPF_CORE_READ(subflow, conn);
	first = (u64)BPF_CORE_READ(msk, first);
	return first == address_of(tp) ? NULL : connection_of(first);
}

static __always_inline void on_connect(u64 key, struct sock *sk, const struct tcp_sock *tp)
{
	struct connection c = {
		.facts = { .direction = DIRECTION_OUTBOUND, .attribution = ATTRIBUTION_CONNECT, .protocol = IPPROTO_TCP },
		.announced = 1,
	};
	struct connection *first = first_subflow_of(tp);

	if (unlikely(has_cookie(sk)))
		c.facts.attempt = attempt_of_used(tp, sk->__sk_common.skc_cookie.counter);
	c.facts.cookie = cookie_of(sk);
	c.facts.netns = sk->__sk_common.skc_net.net->ns.inum;
	if (first) {
		c.facts.owner = first->facts.owner;
		c.facts.attribution = first->facts.attribution;
	} else {
		owner_is_current(&c.facts.owner);
	}
	remember(key, &c, BPF_ANY);
	note_tcp_caller();
}

/* The ends, the local port among them, are there from now on. */
static __always_inline void on_established(u64 key, struct sock *sk, const struct tcp_sock *tp, int oldstate)
{
	struct connection *c = connection_of(key);
	struct connection new = { .facts = { .direction = DIRECTION_INBOUND, .protocol = IPPROTO_TCP } }, *first;

	/* Also accepted before the handshake was complete (TCP fast open). */
	if (c && !is_of_another(c, sk) && (oldstate == TCP_SYN_SENT || oldstate == TCP_SYN_RECV)) {
		endpoints_of_tcp(sk, tp, &c->facts.ends);
		c->established_ns = bpf_ktime_get_boot_ns();
		remember_ends(key, &c->facts);
		if (c->facts.direction == DIRECTION_OUTBOUND || may_announce(c))
			tcp_established(c);
		return;
	}
	new.facts.cookie = cookie_of(sk);
	new.facts.netns = sk->__sk_common.skc_net.net->ns.inum;
	endpoints_of_tcp(sk, tp, &new.facts.ends);
	new.established_ns = bpf_ktime_get_boot_ns();
	if (unlikely(oldstate == TCP_SYN_SENT)) {
		/* connect() came before this program, and no iterator yet. */
		new.facts.direction = DIRECTION_OUTBOUND;
		new.announced = 1;
		tcp_established(&new);
	} else if ((first = first_subflow_of(tp)) && first->facts.attribution != ATTRIBUTION_NONE) {
		new.facts.owner = first->facts.owner;
		new.facts.attribution = first->facts.attribution;
		new.announced = 1;
		tcp_established(&new);
	}
	if (remember(key, &new, BPF_ANY))
		remember_ends(key, &new.facts);
}

/* An accept of what inet_sock_set_state has not told of: the connection was
 * established before this program started, or its handshake is not complete
 * yet (TCP fast open), or there was no room for it in the map. False: meanwhile
 * inet_sock_set_state, on another CPU, has made its entry.
 */
static __always_inline bool tcp_accepted_late(const struct sock *sk)
{
	struct connection c = {
		.facts = { .direction = DIRECTION_INBOUND, .attribution = ATTRIBUTION_ACCEPT, .protocol = IPPROTO_TCP },
	};
	int state = BPF_CORE_READ(sk, __sk_common.skc_state);
	u64 key = (u64)sk;

	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || state == TCP_CLOSE || state == TCP_LISTEN)
		return true;
	c.facts.cookie = number_of(sk);
	c.facts.netns = netns_of(sk);
	owner_is_current(&c.facts.owner);
	if (state != TCP_SYN_RECV) {
		endpoints_of(sk, &c.facts.ends);
		c.established_ns = bpf_ktime_get_boot_ns();
		c.announced = 1;
		c.late = 1;
	}
	if (!remember(key, &c, BPF_NOEXIST))
		return false;
	if (c.late)
		remember_ends(key, &c.facts);
	/* It may have ended before the entries were there. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_CLOSE) {
		forget_ends(&c.facts);
		forget(key);
	} else if (c.late) {
		tcp_established(&c);
	}
	return true;
}

static __always_inline bool has_state(const struct sock *sk, int state)
{
	const struct socket *socket = sk->sk_socket;

	return socket && socket->state == state;
}

/* It ends without having been established. True: the return of connect() will tell
 * of it. A socket that connect() has only begun with is not SS_CONNECTING yet.
 */
static __always_inline bool on_failure(const struct sock *sk, const struct tcp_sock *tp, struct connection *c, int oldstate)
{
	int error = sk->sk_err;

	endpoints_of_tcp(sk, tp, &c->facts.ends); /* connect() clears the port afterwards */
	if (!error && oldstate == TCP_SYN_SENT && has_state(sk, SS_UNCONNECTED) && is_in_connect()) {
		c->failed = 1;
		return true;
	}
	c->facts.reset_by = reset_by_whom(sk, tp, c, oldstate);
	tcp_failed(c, error);
	return false;
}

static __always_inline void on_close(u64 key, const struct sock *sk, const struct tcp_sock *tp, int oldstate)
{
	struct connection *c = connection_of(key);
	u32 told = 0;

	if (!c)
		return;
	if (unlikely(oldstate == TCP_SYN_SENT || !c->established_ns)) {
		if (on_failure(sk, tp, c, oldstate))
			return;
		told = OUTCOME_TOLD;
	} else {
		if (unlikely(may_announce(c))) {
			if (c->facts.attribution == ATTRIBUTION_NONE)
				owner_is_listener(&c->facts);
			tcp_established(c);
		}
		c->facts.reset_by = reset_by_whom(sk, tp, c, oldstate);
		tcp_closed(sk, tp, c, oldstate);
		forget_ends(&c->facts);
		/* The outcome that connect() still has to return is this one. */
		if (has_state(sk, SS_CONNECTING))
			told = OUTCOME_TOLD;
	}
	/* The process still has the socket and may connect it again. */
	if (c->facts.direction == DIRECTION_OUTBOUND && unlikely(sk->sk_socket))
		next_attempt(c->facts.cookie, told);
	forget(key);
}
