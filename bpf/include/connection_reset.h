/* Who reset a TCP connection. */
#pragma once

#include "connection.h"

#define RCV_SHUTDOWN 1

static __always_inline bool has_flag(const struct sock *sk, int flag)
{
	return sk->__sk_common.skc_flags >> flag & 1;
}

/* The kernel also calls tcp_reset, which has this tracepoint, when it gets data for
 * a socket that the process has closed; then it is this host that resets. The two
 * cannot be told apart, so it is not known who does.
 */
static __always_inline void on_reset_received(const struct sock *sk)
{
	struct connection *c = connection_of(address_of(sk));
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	if (!c)
		return;
	if ((state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2) && BPF_CORE_READ(sk, sk_shutdown) & RCV_SHUTDOWN)
		return;
	c->facts.reset_by = RESET_REMOTE;
}

/* A reset that answers a segment need not end the connection; one that answers
 * none does: keep-alive timed out, or an administrator destroyed the socket.
 */
static __always_inline void on_reset_sent(u64 sk, u64 skb)
{
	struct connection *c = skb ? NULL : connection_of(sk);

	if (c)
		c->facts.reset_by = RESET_LOCAL;
}

/* On a change of state to CLOSE. When the process gives up a connection, by a
 * close with data unread, SO_LINGER of 0 or a disconnect, the kernel changes the
 * state first and sends the reset then: from the states of tcp_need_reset, and
 * without an error. A socket whose process is gone (SOCK_DEAD) may end so without
 * a reset, and so may one under repair.
 */
static __always_inline u8 reset_by_whom(const struct sock *sk, const struct tcp_sock *tp, const struct connection *c, int oldstate)
{
	if (c->facts.reset_by || sk->sk_err)
		return c->facts.reset_by;
	if (oldstate != TCP_ESTABLISHED && oldstate != TCP_CLOSE_WAIT && oldstate != TCP_FIN_WAIT1 &&
	    oldstate != TCP_FIN_WAIT2 && oldstate != TCP_SYN_RECV)
		return RESET_NONE;
	if (has_flag(sk, bpf_core_enum_value(enum sock_flags, SOCK_DEAD)) ||
	    BPF_CORE_READ_BITFIELD_PROBED(tp, repair))
		return RESET_NONE;
	return RESET_LOCAL;
}
