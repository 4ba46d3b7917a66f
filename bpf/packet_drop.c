/* Packets that the kernel drops: every kfree_skb with its reason and place, and the SYN
 * that meets a full accept queue, which the kernel frees like one that it has answered.
 *
 * Most drops happen in softirq, where the process that happens to run has
 * nothing to do with the packet. What is told of the owner comes from the
 * packet's socket, or is left out.
 *
 * Left out by rule and counted as filtered, because nothing is lost with them:
 *
 *   the spent FIN   an empty TCP segment freed with reason QUEUE_PURGE, or by
 *                   sk_stream_kill_queues where the kernel has no such reason:
 *                   the FIN of the peer, already acted upon, that still lies in
 *                   the receive queue when a connection ends in the ordinary way
 *   the spent ACK   a TCP segment without data or SYN that
 *                   tcp_rcv_state_process, tcp_v4_rcv or tcp_v6_rcv frees with
 *                   reason NOT_SPECIFIED, TCP_CLOSE or TCP_RFC7323_TW_PAWS: an
 *                   acknowledgement or a FIN, already acted upon, to a socket that
 *                   is closing or in TIME_WAIT, or was closed while the segment
 *                   waited for it; not one to a listener, which has no room for
 *                   the connection.
 *                   Where the kernel gives no reasons (before 5.17) the place
 *                   alone decides, so that segments of this kind to closed
 *                   ports are left out as well
 *   the duplicate   a TCP segment without SYN or RST freed with reason
 *                   TCP_OLD_DATA or TCP_OLD_SEQUENCE: the receiver has had all of
 *                   it before. It is a keepalive probe, or was sent again too
 *                   early, which the sender's connection counts in retransmits
 *   the overtaken   an ACK without data freed with reason TCP_RFC7323_PAWS_ACK
 *   ACK             or, where there is no such reason, TCP_RFC7323_PAWS: data that
 *                   was sent after it, by another CPU, has arrived before it and
 *                   told all that it tells. The latter takes the receiving socket
 *   no packet       what a Unix-domain socket sent, freed with the socket that has
 *                   not read it: it was never on a network
 *   vsock control   a packet of a vsock without data that was acted upon, as credit
 *                   for the sender, freed by virtio_transport_recv_pkt or the part of
 *                   it for a connected socket with reason NOT_SPECIFIED
 */
#include "filter.h"
#include "packet_drop_flood.h"

#define TCPHDR_FIN 0x01
#define TCPHDR_SYN 0x02
#define TCPHDR_RST 0x04
#define TCPHDR_ACK 0x10

/* Of the running kernel. 0: it has no such reason. */
const volatile u32 queue_purge = 0;   /* SKB_DROP_REASON_QUEUE_PURGE */
const volatile u32 not_specified = 0; /* SKB_DROP_REASON_NOT_SPECIFIED */
const volatile u32 old_data = 0;      /* SKB_DROP_REASON_TCP_OLD_DATA */
const volatile u32 old_sequence = 0;  /* SKB_DROP_REASON_TCP_OLD_SEQUENCE */
const volatile u32 tcp_close = 0;     /* SKB_DROP_REASON_TCP_CLOSE */
const volatile u32 tw_paws = 0;       /* SKB_DROP_REASON_TCP_RFC7323_TW_PAWS */
const volatile u32 paws = 0;          /* SKB_DROP_REASON_TCP_RFC7323_PAWS */
const volatile u32 paws_ack = 0;      /* SKB_DROP_REASON_TCP_RFC7323_PAWS_ACK */
const volatile u32 overflow = 0;      /* SKB_DROP_REASON_TCP_LISTEN_OVERFLOW */

/* A function, or a part that the compiler put elsewhere. 0: there is none, or
 * the kernel hides its symbols; then the rule that needs it does not apply.
 */
struct place {
	u64 begin;
	u64 end;
};

#define PLACES 6

const volatile struct place receivers[PLACES] = {}; /* tcp_rcv_state_process, tcp_v4_rcv, tcp_v6_rcv */
const volatile struct place syn_receivers[PLACES] = {}; /* tcp_rcv_state_process */
const volatile struct place vsock_receivers[PLACES] = {}; /* virtio_transport_recv_pkt, _recv_connected */
const volatile struct place purgers[PLACES] = {}; /* sk_stream_kill_queues, without queue_purge */

static __always_inline bool is_in(u64 location, const volatile struct place *places)
{
	bool found = false;
	int i;

	for (i = 0; i < PLACES; i++)
		found |= location >= places[i].begin && location < places[i].end;
	return found;
}

static __always_inline bool is_spent_fin(const struct sk_buff *skb, u64 location, u32 reason)
{
	const struct sock *sk;

	if (queue_purge ? reason != queue_purge : !is_in(location, purgers))
		return false;
	if (skb->len)
		return false;
	sk = skb->sk;
	return sk && is_of_full_socket(sk->__sk_common.skc_state) && sk->sk_protocol == IPPROTO_TCP;
}

static __always_inline bool is_no_packet(const struct sk_buff *skb)
{
	const struct sock *sk = skb->sk;

	return sk && sk->__sk_common.skc_family == AF_UNIX;
}

/* Only what asks for a connection, or has data, is missed by somebody. The header is
 * that of the standard (virtio 1.2, section 5.10.6), little endian; the kernel's own
 * type is in a module.
 */
#define VSOCK_OPERATION_OFFSET 30

static __always_inline bool is_vsock_control(const struct sk_buff *skb, u64 location, u32 reason)
{
	u8 operation[2] = {};

	if (reason != not_specified || !is_in(location, vsock_receivers))
		return false;
	bpf_probe_read_kernel(operation, sizeof(operation), skb->head + VSOCK_OPERATION_OFFSET);
	return operation[0] != VIRTIO_VSOCK_OP_REQUEST && operation[0] != VIRTIO_VSOCK_OP_RW;
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
	u32 numbers;

	if (reason != not_specified && !(tcp_close && reason == tcp_close) && !(tw_paws && reason == tw_paws))
		return false;
	if (!is_in(location, receivers))
		return false;
	if (receiver && BPF_CORE_READ(receiver, __sk_common.skc_state) == TCP_LISTEN)
		return false;
	numbers = BPF_CORE_READ(cb, end_seq) - BPF_CORE_READ(cb, seq);
	return numbers == 0 || (numbers == 1 && BPF_CORE_READ(cb, tcp_flags) & TCPHDR_FIN);
}

/* Of what PAWS refuses, the ACKs that the kernel itself tells apart where it has
 * paws_ack (tcp_disordered_ack_check): without data, and of before what was received.
 */
static __always_inline bool is_overtaken_ack(const struct sk_buff *skb, u32 reason, const struct sock *receiver)
{
	const struct tcp_skb_cb *cb = (const struct tcp_skb_cb *)skb->cb;
	u32 sequence;

	if (paws_ack)
		return reason == paws_ack;
	if (!paws || reason != paws || !receiver)
		return false;
	sequence = BPF_CORE_READ(cb, seq);
	return sequence == BPF_CORE_READ(cb, end_seq) &&
	       (s32)(sequence - BPF_CORE_READ((const struct tcp_sock *)receiver, rcv_nxt)) < 0;
}

static __always_inline bool is_excluded(const struct packet *p)
{
	const struct drop *d = &p->drop;
	struct owner owner = {.uid = d->uid, .cgroups = p->cgroups};
	struct endpoints ends = {
		.local = d->source,
		.remote = d->destination,
		.local_port = p->source_port,
		.remote_port = d->destination_port,
	};
	struct subject subject = {
		.owner = &owner,
		.ends = &ends,
		.interface = d->interface,
		.known = RULE_INTERFACE,
	};

	__builtin_memcpy(owner.command, d->command, sizeof(owner.command));
	if (d->attribution != ATTRIBUTION_NONE)
		subject.known |= RULES_OF_SOCKET;
	if (d->process.pid)
		subject.known |= RULE_COMMAND;
	if (d->known & KNOWN_PROTOCOL)
		subject.known |= RULES_OF_ENDS;
	return is_left_out(&subject);
}

static __always_inline void record_wanted(const struct packet *p)
{
	if (is_excluded(p))
		count(COUNTER_EXCLUDED);
	else
		record(p, bpf_ktime_get_boot_ns());
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb, struct sk_buff *skb, void *location)
{
	/* The argument and the type came together. */
	u32 reason = bpf_core_type_exists(enum skb_drop_reason) ? ctx[2] : 0;
	const struct sock *owner, *receiver;
	struct packet p;

	/* Every ordinary end of a TCP connection comes here: nothing else before it. */
	if (is_spent_fin(skb, (u64)location, reason)) {
		count(COUNTER_FILTERED);
		return 0;
	}
	receiver = receiver_of(ctx);
	if (is_spent_ack(skb, (u64)location, reason, receiver) || is_duplicate(skb, reason) ||
	    is_overtaken_ack(skb, reason, receiver) || is_no_packet(skb) || is_vsock_control(skb, (u64)location, reason)) {
		count(COUNTER_FILTERED);
		return 0;
	}
	__builtin_memset(&p, 0, sizeof(p));
	p.drop.location = (u64)location;
	p.drop.reason = reason;
	read_packet(&p, skb);
	owner = owner_of(&p.drop, skb, receiver);
	if (owner)
		read_socket(&p, owner);
	read_device(&p.drop, skb, owner);
	read_connection(&p, owner);
	record_wanted(&p);
	return 0;
}

/* As tcp_conn_request asks before it takes a SYN (sk_acceptq_is_full). */
static __always_inline bool is_full(const struct sock *sk)
{
	return READ(struct sock, sk, sk_ack_backlog) > READ(struct sock, sk, sk_max_ack_backlog);
}

/* The socket that listens for a SYN, unless it has room. Mostly only one has the port. */
static __always_inline const struct sock *full_listener_of(const struct packet *p)
{
	u64 key = port_of_netns(p->drop.netns, p->drop.destination_port);
	struct sockets *s = bpf_map_lookup_elem(&listening_ports, &key);
	const struct sock *sk;

	if (s && s->only && !is_full((const struct sock *)s->only))
		return NULL;
	sk = (const struct sock *)listener_of(p);
	return sk && is_full(sk) ? sk : NULL;
}

/* Several sockets with one port: it is not known whose queue it was. */
static __always_inline bool is_one_of_several(const struct sock *sk)
{
	void *group = READ_POINTER(struct sock, sk, sk_reuseport_cb);

	return group && READ(struct sock_reuseport, group, num_socks) > 1;
}

/* Only where the tracepoint tells the place, and the reason has a name. Each SYN comes
 * here: until it is known to be refused, as little as possible is read of it.
 */
SEC("tp_btf/consume_skb")
int BPF_PROG(consume_skb, struct sk_buff *skb, void *location)
{
	const struct sock *listener;
	struct packet p;
	u8 flags; /* the lowest byte, all that the verifier lets one read at once */

	if (!is_in((u64)location, syn_receivers))
		return 0;
	flags = *((const u8 *)skb->cb + bpf_core_field_offset(struct tcp_skb_cb, tcp_flags));
	if ((flags & (TCPHDR_SYN | TCPHDR_ACK)) != TCPHDR_SYN)
		return 0;
	__builtin_memset(&p, 0, sizeof(p));
	read_packet(&p, skb);
	if (!(p.drop.known & KNOWN_PORTS))
		return 0;
	p.drop.netns = netns_of_route(skb);
	listener = full_listener_of(&p);
	if (!listener || is_one_of_several(listener))
		return 0;
	p.drop.location = (u64)location;
	p.drop.reason = overflow;
	p.drop.attribution = ATTRIBUTION_RECEIVING;
	read_device(&p.drop, skb, NULL);
	read_socket(&p, listener);
	read_connection(&p, listener);
	record_wanted(&p);
	return 0;
}
