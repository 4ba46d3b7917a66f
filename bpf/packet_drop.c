/* Packets that the kernel drops: every kfree_skb with its reason and place.
 *
 * Most drops happen in softirq, where the process that happens to run has
 * nothing to do with the packet. What is told of the owner comes from the
 * packet's socket, or is left out.
 *
 * Left out by rule and counted as filtered, because nothing is lost with them:
 *
 *   the spent FIN   an empty TCP segment freed with reason QUEUE_PURGE: the FIN
 *                   of the peer, already acted upon, that still lies in the
 *                   receive queue when a connection ends in the ordinary way
 *   the spent ACK   a TCP segment without data or SYN that
 *                   tcp_rcv_state_process, tcp_v4_rcv or tcp_v6_rcv frees with
 *                   reason NOT_SPECIFIED: an acknowledgement or a FIN, already
 *                   acted upon, to a socket that is closing or in TIME_WAIT;
 *                   not one to a listener, which has no room for the connection
 *   the duplicate   a TCP segment without SYN or RST freed with reason
 *                   TCP_OLD_DATA or TCP_OLD_SEQUENCE: the receiver has had all of
 *                   it before. It is a keepalive probe, or was sent again too
 *                   early, which the sender's connection counts in retransmits
 */
#include "packet_drop_flood.h"

#define TCPHDR_FIN 0x01
#define TCPHDR_SYN 0x02
#define TCPHDR_RST 0x04

/* Of the running kernel. 0: it has no such reason, or hides its symbols; then
 * the rule that needs it does not apply.
 */
const volatile u32 queue_purge = 0;   /* SKB_DROP_REASON_QUEUE_PURGE */
const volatile u32 not_specified = 0; /* SKB_DROP_REASON_NOT_SPECIFIED */
const volatile u32 old_data = 0;      /* SKB_DROP_REASON_TCP_OLD_DATA */
const volatile u32 old_sequence = 0;  /* SKB_DROP_REASON_TCP_OLD_SEQUENCE */

struct function {
	u64 begin;
	u64 end;
};

const volatile struct function receivers[3] = {}; /* tcp_rcv_state_process, tcp_v4_rcv, tcp_v6_rcv */

static __always_inline bool is_spent_fin(const struct sk_buff *skb, u32 reason)
{
	const struct sock *sk;

	if (!queue_purge || reason != queue_purge || BPF_CORE_READ(skb, len))
		return false;
	sk = BPF_CORE_READ(skb, sk);
	return sk && is_full_socket(sk) && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP;
}

static __always_inline bool is_duplicate(const struct sk_buff *skb, u32 reason)
{
	const struct tcp_skb_cb *cb = (const struct tcp_skb_cb *)skb->cb;

	if (!(old_data && reason == old_data) && !(old_sequence && reason == old_sequence))
		return false;
	return !(BPF_CORE_READ(cb, tcp_flags) & (TCPHDR_SYN | TCPHDR_RST));
}

static __always_inline bool is_spent_ack(const struct sk_buff *skb, u64 location, u32 reason, const struct sock *receiver)
{
	const struct tcp_skb_cb *cb = (const struct tcp_skb_cb *)skb->cb;
	bool received = false;
	u32 numbers;
	int i;

	if (!not_specified || reason != not_specified)
		return false;
	for (i = 0; i < 3; i++)
		received |= location >= receivers[i].begin && location < receivers[i].end;
	if (!received || (receiver && BPF_CORE_READ(receiver, __sk_common.skc_state) == TCP_LISTEN))
		return false;
	numbers = BPF_CORE_READ(cb, end_seq) - BPF_CORE_READ(cb, seq);
	return numbers == 0 || (numbers == 1 && BPF_CORE_READ(cb, tcp_flags) & TCPHDR_FIN);
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb, struct sk_buff *skb, void *location, u32 reason)
{
	const struct sock *owner, *receiver = receiver_of(ctx);
	struct packet p = {};

	if (is_spent_fin(skb, reason) || is_spent_ack(skb, (u64)location, reason, receiver) || is_duplicate(skb, reason)) {
		count(COUNTER_FILTERED);
		return 0;
	}
	p.drop.location = (u64)location;
	p.drop.reason = reason;
	read_packet(&p, skb);
	owner = owner_of(&p.drop, skb, receiver);
	if (owner)
		read_socket(&p.drop, owner);
	read_device(&p.drop, skb, owner);
	record(&p, bpf_ktime_get_boot_ns());
	return 0;
}
