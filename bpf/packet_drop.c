/* Packets that the kernel drops: every kfree_skb with its reason and place.
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
 *                   reason NOT_SPECIFIED: an acknowledgement or a FIN, already
 *                   acted upon, to a socket that is closing or in TIME_WAIT.
 *                   Where the kernel gives no reasons (before 5.17) the place
 *                   alone decides, so that segments of this kind to closed
 *                   ports are left out as well
 */
#include "filter.h"
#include "names.h"

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd

#define IP_OFFSET 0x1fff /* of iphdr.frag_off: not the first fragment */

/* Inode numbers of namespaces begin here (PROC_DYNAMIC_FIRST, less the fixed
 * ones of the first namespaces).
 */
#define FIRST_NAMESPACE 0xefffffe0

/* IPv6 extension headers that may stand before TCP or UDP (RFC 8200). */
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_DSTOPTS 60

#define MAX_EXTENSION_HEADERS 6

#define TCPHDR_FIN 0x01

enum known {
	KNOWN_IP = 1 << 0,    /* addresses and ip_protocol */
	KNOWN_PORTS = 1 << 1,
	KNOWN_SOCKET = 1 << 2, /* uid and cgroup_id */
};

struct packet_drop_event {
	u64 time_ns;  /* CLOCK_BOOTTIME */
	u64 location; /* address of the instruction that dropped it */
	u64 cgroup_id;
	struct address source;
	struct address destination;
	u32 reason;
	u32 length;
	u32 netns;
	u32 uid;
	u16 source_port;
	u16 destination_port;
	u16 ether_type;
	u8 ip_protocol;
	u8 known;
	char interface[16];
	u32 cgroups; /* as in struct owner */
};

const struct packet_drop_event *unused_packet_drop_event __attribute__((unused));

/* Of the running kernel. 0: it has no such reason. */
const volatile u32 queue_purge = 0;   /* SKB_DROP_REASON_QUEUE_PURGE */
const volatile u32 not_specified = 0; /* SKB_DROP_REASON_NOT_SPECIFIED */

/* A function, or a part that the compiler put elsewhere. 0: there is none, or
 * the kernel hides its symbols; then the rule that needs it does not apply.
 */
struct place {
	u64 begin;
	u64 end;
};

#define PLACES 6

const volatile struct place receivers[PLACES] = {}; /* tcp_rcv_state_process, tcp_v4_rcv, tcp_v6_rcv */
const volatile struct place purgers[PLACES] = {}; /* sk_stream_kill_queues, without queue_purge */

static __always_inline bool is_in(u64 location, const volatile struct place *places)
{
	bool found = false;
	int i;

	for (i = 0; i < PLACES; i++)
		found |= location >= places[i].begin && location < places[i].end;
	return found;
}

static __always_inline bool is_full_socket(const struct sock *sk)
{
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

static __always_inline bool is_spent_fin(const struct sk_buff *skb, u64 location, u32 reason)
{
	const struct sock *sk;

	if (queue_purge ? reason != queue_purge : !is_in(location, purgers))
		return false;
	if (BPF_CORE_READ(skb, len))
		return false;
	sk = BPF_CORE_READ(skb, sk);
	return sk && is_full_socket(sk) && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP;
}

static __always_inline bool is_spent_ack(const struct sk_buff *skb, u64 location, u32 reason)
{
	const struct tcp_skb_cb *cb = (const struct tcp_skb_cb *)skb->cb;
	u32 numbers;

	if (reason != not_specified || !is_in(location, receivers))
		return false;
	numbers = BPF_CORE_READ(cb, end_seq) - BPF_CORE_READ(cb, seq);
	return numbers == 0 || (numbers == 1 && BPF_CORE_READ(cb, tcp_flags) & TCPHDR_FIN);
}

static __always_inline bool has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP;
}

static __always_inline void read_ports(struct packet_drop_event *e, const void *transport)
{
	u16 ports[2];

	if (!has_ports(e->ip_protocol) || bpf_probe_read_kernel(ports, sizeof(ports), transport))
		return;
	e->source_port = bpf_ntohs(ports[0]);
	e->destination_port = bpf_ntohs(ports[1]);
	e->known |= KNOWN_PORTS;
}

static __always_inline void read_ipv4(struct packet_drop_event *e, const void *network)
{
	struct iphdr ip;
	u8 first;

	if (bpf_probe_read_kernel(&ip, sizeof(ip), network) || bpf_probe_read_kernel(&first, 1, network) ||
	    first >> 4 != 4)
		return;
	address_from_v4(&e->source, ip.saddr);
	address_from_v4(&e->destination, ip.daddr);
	e->ip_protocol = ip.protocol;
	e->known |= KNOWN_IP;
	if (!(bpf_ntohs(ip.frag_off) & IP_OFFSET))
		read_ports(e, network + (first & 0xf) * 4);
}

static __always_inline void read_ipv6(struct packet_drop_event *e, const void *network)
{
	struct ipv6hdr ip;
	u32 at = sizeof(ip);
	u8 first, next;
	int i;

	if (bpf_probe_read_kernel(&ip, sizeof(ip), network) || bpf_probe_read_kernel(&first, 1, network) ||
	    first >> 4 != 6)
		return;
	__builtin_memcpy(&e->source, &ip.saddr, sizeof(e->source));
	__builtin_memcpy(&e->destination, &ip.daddr, sizeof(e->destination));
	e->known |= KNOWN_IP;
	next = ip.nexthdr;
	for (i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		u8 header[4] = {};

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			break;
		if (bpf_probe_read_kernel(header, sizeof(header), network + at))
			break;
		if (next == IPPROTO_FRAGMENT) {
			if ((header[2] << 8 | header[3]) & 0xfff8) {
				e->ip_protocol = header[0];
				return; /* not the first fragment: it has no ports */
			}
			at += 8;
		} else {
			at += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	e->ip_protocol = next;
	read_ports(e, network + at);
}

/* Namespace of a device, or 0 if this is no device. The device shares its place
 * in the sk_buff with other things while a packet lies in a socket's queue
 * (dev_scratch, rbnode), and so does the route (tcp_tsorted_anchor), so they are
 * believed only if they look like what they should be.
 */
static __always_inline u32 netns_of_device(const struct net_device *dev)
{
	u32 netns;

	if ((s64)dev >= 0) /* not a kernel address */
		return 0;
	netns = BPF_CORE_READ(dev, nd_net.net, ns.inum);
	return netns >= FIRST_NAMESPACE && BPF_CORE_READ(dev, ifindex) > 0 ? netns : 0;
}

static __always_inline void read_device(struct packet_drop_event *e, const struct sk_buff *skb)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);

	e->netns = netns_of_device(dev);
	if (!e->netns && !BPF_CORE_READ(skb, skb_iif)) {
		/* A packet of this host that has a route but was not sent yet. */
		struct dst_entry *route = (struct dst_entry *)(BPF_CORE_READ(skb, _skb_refdst) & ~1UL);

		dev = (s64)route < 0 ? BPF_CORE_READ(route, dev) : NULL;
		e->netns = netns_of_device(dev);
	}
	if (e->netns)
		bpf_probe_read_kernel_str(e->interface, sizeof(e->interface), dev->name);
}

static __always_inline void read_socket(struct packet_drop_event *e, const struct sk_buff *skb)
{
	const struct sock *sk = BPF_CORE_READ(skb, sk);
	struct kernfs_node *cgroup;

	if (!sk || !is_full_socket(sk))
		return;
	if (!e->netns)
		e->netns = netns_of(sk);
	e->uid = BPF_CORE_READ(sk, sk_uid.val);
	cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn);
	e->cgroup_id = BPF_CORE_READ(cgroup, id);
	e->cgroups = cgroups_of(BPF_CORE_READ(sk, sk_cgrp_data.cgroup));
	tell_cgroup(cgroup);
	e->known |= KNOWN_SOCKET;
}

/* The owner's command is not known here, and no rule asks for it. */
static __always_inline bool is_excluded(const struct packet_drop_event *e)
{
	struct owner owner = {.uid = e->uid, .cgroups = e->cgroups};
	struct endpoints ends = {
		.local = e->source,
		.remote = e->destination,
		.local_port = e->source_port,
		.remote_port = e->destination_port,
	};
	struct subject subject = {
		.socket = e->known & KNOWN_SOCKET ? &owner : NULL,
		.ends = e->known & KNOWN_IP ? &ends : NULL,
		.interface = e->interface[0] ? e->interface : NULL,
	};

	return is_left_out(&subject);
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(kfree_skb, struct sk_buff *skb, void *location)
{
	/* The argument and the type came together. */
	u32 reason = bpf_core_type_exists(enum skb_drop_reason) ? ctx[2] : 0;
	struct packet_drop_event *e;
	const void *head, *network, *data;

	if (is_spent_fin(skb, (u64)location, reason) || is_spent_ack(skb, (u64)location, reason)) {
		count(COUNTER_FILTERED);
		return 0;
	}
	e = reserve(sizeof(*e));
	if (!e)
		return 0;
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = bpf_ktime_get_boot_ns();
	e->location = (u64)location;
	e->reason = reason;
	e->ether_type = bpf_ntohs(BPF_CORE_READ(skb, protocol));
	read_device(e, skb);
	read_socket(e, skb);

	head = BPF_CORE_READ(skb, head);
	data = BPF_CORE_READ(skb, data);
	network = head + BPF_CORE_READ(skb, network_header);
	if (e->ether_type == ETH_P_IP)
		read_ipv4(e, network);
	else if (e->ether_type == ETH_P_IPV6)
		read_ipv6(e, network);
	e->length = BPF_CORE_READ(skb, len);
	if (e->known & KNOWN_IP)
		e->length += data - network; /* headers that were taken off already */
	if (is_excluded(e))
		leave_out(e);
	else
		submit(e);
	return 0;
}
