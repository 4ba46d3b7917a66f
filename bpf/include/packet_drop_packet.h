/* What a dropped packet tells: protocol, addresses, ports, interface and the
 * socket that it belongs to.
 */
#pragma once

#include "open_connections.h"

#define ETH_P_IP 0x0800
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8
#define ETH_P_IPV6 0x86dd

#define ETH_TYPE_OFFSET 12 /* of a frame: the EtherType, or the first VLAN tag */
#define VLAN_TAG_LEN 4
#define MAX_VLAN_TAGS 2

#define NO_HEADER 0xffff /* sk_buff.mac_header: not known (skb_mac_header_was_set) */

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

/* net.dev_index_head: lists of devices by the last bits of their index. */
#define DEVICE_LISTS 256
#define MAX_DEVICES_OF_LIST 16

enum known {
	KNOWN_PROTOCOL = 1 << 0, /* ip_protocol: it is IP */
	KNOWN_SOURCE = 1 << 1,
	KNOWN_DESTINATION = 1 << 2,
	KNOWN_PORTS = 1 << 3, /* of those of both that are known */
};

/* How the owner is known. Keep in step with decode.go. */
enum attribution {
	ATTRIBUTION_NONE,
	ATTRIBUTION_SOCKET,     /* skb->sk: it sent the packet, or had taken it in */
	ATTRIBUTION_RECEIVING,  /* rx_sk: the packet was for it */
	ATTRIBUTION_CONNECTION, /* no socket; it came in for an open connection */
};

/* All that makes drops alike; see packet_drop_flood.h. It is the key of a map,
 * so it has no holes.
 */
struct drop {
	u64 location; /* address of the instruction that dropped it */
	u64 cgroup_id;
	struct address source;
	struct address destination;
	u32 reason;
	u32 netns;
	u32 uid;
	u16 ether_type;
	u16 destination_port;
	u8 ip_protocol;
	u8 known;
	u8 attribution;
	u8 none[5];
	char interface[16];
	struct process process; /* of the connection; pid 0: not known */
	char command[16];
};

struct packet {
	struct drop drop;
	const void *end; /* of what lies in one piece: the rest cannot be read */
	u32 length;
	u32 cgroups; /* as in struct owner */
	u16 source_port;
};

/* Of the running kernel: the tracepoint tells the receiving socket. */
const volatile bool has_rx_sk = false;

static __always_inline bool is_of_full_socket(u8 state)
{
	return state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV;
}

static __always_inline bool is_full_socket(const struct sock *sk)
{
	return is_of_full_socket(BPF_CORE_READ(sk, __sk_common.skc_state));
}

static __always_inline bool read_header(void *to, u32 size, const struct packet *p, const void *from)
{
	return from + size <= p->end && !bpf_probe_read_kernel(to, size, from);
}

static __always_inline bool has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP;
}

static __always_inline void read_ports(struct packet *p, const void *transport)
{
	u16 ports[2];

	if (!has_ports(p->drop.ip_protocol) || !read_header(ports, sizeof(ports), p, transport))
		return;
	p->source_port = bpf_ntohs(ports[0]);
	p->drop.destination_port = bpf_ntohs(ports[1]);
	p->drop.known |= KNOWN_PORTS;
}

static __always_inline void read_ipv4(struct packet *p, const void *network)
{
	struct iphdr ip;
	u8 first;

	if (!read_header(&ip, sizeof(ip), p, network))
		return;
	first = *(u8 *)&ip; /* version and length */
	if (first >> 4 != 4)
		return;
	address_from_v4(&p->drop.source, ip.saddr);
	address_from_v4(&p->drop.destination, ip.daddr);
	p->drop.ip_protocol = ip.protocol;
	p->drop.known |= KNOWN_PROTOCOL | KNOWN_SOURCE | KNOWN_DESTINATION;
	if (!(bpf_ntohs(ip.frag_off) & IP_OFFSET))
		read_ports(p, network + (first & 0xf) * 4);
}

static __always_inline void read_ipv6(struct packet *p, const void *network)
{
	struct ipv6hdr ip;
	u32 at = sizeof(ip);
	u8 next;
	int i;

	if (!read_header(&ip, sizeof(ip), p, network) || *(u8 *)&ip >> 4 != 6) /* version */
		return;
	__builtin_memcpy(&p->drop.source, &ip.saddr, sizeof(p->drop.source));
	__builtin_memcpy(&p->drop.destination, &ip.daddr, sizeof(p->drop.destination));
	p->drop.known |= KNOWN_PROTOCOL | KNOWN_SOURCE | KNOWN_DESTINATION;
	next = ip.nexthdr;
	for (i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		u8 header[4] = {};

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			break;
		if (!read_header(header, sizeof(header), p, network + at))
			break;
		if (next == IPPROTO_FRAGMENT) {
			if ((header[2] << 8 | header[3]) & 0xfff8) {
				p->drop.ip_protocol = header[0];
				return; /* not the first fragment: it has no ports */
			}
			at += 8;
		} else {
			at += (header[1] + 1) * 8;
		}
		next = header[0];
	}
	p->drop.ip_protocol = next;
	read_ports(p, network + at);
}

/* The EtherType of what is in a VLAN, and where that begins. A tag that lies in
 * the packet stands before the network header of a packet that is sent, and
 * behind it in one that came in, so it is looked for from the MAC header on.
 */
static __always_inline const void *behind_vlan(struct packet *p, const struct sk_buff *skb, const void *network)
{
	u16 header = BPF_CORE_READ(skb, mac_header);
	const void *at = BPF_CORE_READ(skb, head) + header + ETH_TYPE_OFFSET;
	u16 type;
	int i;

	if (header == NO_HEADER)
		return network;
	for (i = 0; i <= MAX_VLAN_TAGS; i++, at += VLAN_TAG_LEN) {
		if (!read_header(&type, sizeof(type), p, at))
			return network;
		type = bpf_ntohs(type);
		if (type == ETH_P_8021Q || type == ETH_P_8021AD)
			continue;
		p->drop.ether_type = type;
		return at + sizeof(type);
	}
	return network;
}

/* Only for a packet that is an argument of the hook: its type is known. */
static __always_inline void read_packet(struct packet *p, const struct sk_buff *skb)
{
	const void *head = skb->head;
	const void *network = head + skb->network_header;

	p->end = head + skb->tail;
	p->drop.ether_type = bpf_ntohs(skb->protocol);
	if (p->drop.ether_type == ETH_P_8021Q || p->drop.ether_type == ETH_P_8021AD)
		network = behind_vlan(p, skb, network);
	if (p->drop.ether_type == ETH_P_IP)
		read_ipv4(p, network);
	else if (p->drop.ether_type == ETH_P_IPV6)
		read_ipv6(p, network);
	p->length = skb->len;
	if (p->drop.known & KNOWN_PROTOCOL)
		p->length += (const void *)skb->data - network; /* headers that were taken off already */
}

/* Namespace of a device, or NULL if this is no device. The device shares its
 * place in the sk_buff with other things while a packet lies in a socket's queue
 * (dev_scratch, rbnode), and so does the route (tcp_tsorted_anchor), so they are
 * believed only if they look like what they should be.
 */
static __always_inline struct net *net_of_device(const struct net_device *dev)
{
	struct net *net;

	if ((s64)dev >= 0) /* not a kernel address */
		return NULL;
	net = BPF_CORE_READ(dev, nd_net.net);
	return BPF_CORE_READ(net, ns.inum) >= FIRST_NAMESPACE && BPF_CORE_READ(dev, ifindex) > 0 ? net : NULL;
}

static __always_inline struct net_device *device_of_route(const struct sk_buff *skb)
{
	struct dst_entry *route = (struct dst_entry *)(BPF_CORE_READ(skb, _skb_refdst) & ~1UL);

	return (s64)route < 0 ? BPF_CORE_READ(route, dev) : NULL;
}

/* The namespace of a packet that TCP takes in, which has a route and its device no
 * more; 0: not known.
 */
static __always_inline u32 netns_of_route(const struct sk_buff *skb)
{
	void *route = (void *)(skb->_skb_refdst & ~1UL), *dev, *net;

	if ((s64)route >= 0)
		return 0;
	dev = READ_POINTER(struct dst_entry, route, dev);
	net = READ_POINTER(struct net_device, dev, nd_net.net);
	return READ(struct net, net, ns.inum);
}

/* The device of an index in a namespace, as __dev_get_by_index finds it. */
static __always_inline struct net_device *device_of_index(const struct net *net, u32 index)
{
	struct hlist_head *lists = BPF_CORE_READ(net, dev_index_head);
	struct hlist_node *node = NULL;
	int i;

	bpf_probe_read_kernel(&node, sizeof(node), &lists[index % DEVICE_LISTS]);
	for (i = 0; i < MAX_DEVICES_OF_LIST && node; i++) {
		struct net_device *dev = (void *)node - bpf_core_field_offset(struct net_device, index_hlist);

		if (BPF_CORE_READ(dev, ifindex) == index)
			return dev;
		node = BPF_CORE_READ(node, next);
	}
	return NULL;
}

/* The device that a packet came in on or was to leave by. A packet on its way
 * has it; one that was taken in by TCP has the index; one of this host that was
 * not sent yet has a route.
 */
static __always_inline void read_device(struct drop *d, const struct sk_buff *skb, const struct sock *owner)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);
	struct net *net = net_of_device(dev);
	u32 came_in_on = BPF_CORE_READ(skb, skb_iif);

	if (!net) {
		dev = device_of_route(skb);
		net = net_of_device(dev);
		if (owner && net != BPF_CORE_READ(owner, __sk_common.skc_net.net)) {
			dev = NULL;
			net = BPF_CORE_READ(owner, __sk_common.skc_net.net);
		}
		if (came_in_on)
			dev = net ? device_of_index(net, came_in_on) : NULL;
	}
	if (net)
		d->netns = BPF_CORE_READ(net, ns.inum);
	if (net && dev)
		bpf_probe_read_kernel_str(d->interface, sizeof(d->interface), dev->name);
}

/* The socket that was to receive the packet, or NULL. rx_sk is the fourth argument
 * of newer kernels only, and NULL most of the time, which the verifier of some
 * kernels does not know (CVE-2025-21852): so it is copied from the context like
 * foreign memory, and what it points to is only ever probed.
 */
static __always_inline const struct sock *receiver_of(const u64 *ctx)
{
	const struct sock *sk = NULL;

	if (has_rx_sk)
		bpf_probe_read_kernel(&sk, sizeof(sk), &ctx[3]);
	return sk && is_full_socket(sk) ? sk : NULL;
}

/* The socket that the packet belongs to, or NULL. */
static __always_inline const struct sock *owner_of(struct drop *d, const struct sk_buff *skb, const struct sock *receiver)
{
	const struct sock *sk = BPF_CORE_READ(skb, sk);

	d->attribution = ATTRIBUTION_SOCKET;
	if (sk && is_full_socket(sk))
		return sk;
	d->attribution = receiver ? ATTRIBUTION_RECEIVING : ATTRIBUTION_NONE;
	return receiver;
}

static __always_inline void read_socket(struct packet *p, const struct sock *sk)
{
	struct cgroup *cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);

	p->drop.uid = BPF_CORE_READ(sk, sk_uid.val);
	p->drop.cgroup_id = BPF_CORE_READ(cgroup, kn, id);
	p->cgroups = cgroups_of(cgroup);
	tell_cgroup((u64)BPF_CORE_READ(cgroup, kn));
}

/* The connection that the packet belongs to, or NULL. */
static __always_inline const struct facts *connection_of(const struct packet *p, const struct sock *sk)
{
	const struct drop *d = &p->drop;
	struct endpoints ends = {
		.local = d->destination,
		.remote = d->source,
		.local_port = d->destination_port,
		.remote_port = p->source_port,
	};
	u64 known;

	if (sk && d->ip_protocol == IPPROTO_UDP)
		return facts_of_udp(BPF_CORE_READ(sk, __sk_common.skc_cookie.counter));
	if (sk)
		return facts_of_tcp((u64)sk);
	if (!(d->known & KNOWN_PORTS))
		return NULL;
	if (d->ip_protocol == IPPROTO_UDP)
		return udp_of_ends(&ends, d->netns);
	if (d->ip_protocol != IPPROTO_TCP)
		return NULL;
	known = socket_of_ends(&ends, d->netns);
	return known ? facts_of_tcp(known) : NULL;
}

/* Needs the ports and the namespace. */
static __always_inline void read_connection(struct packet *p, const struct sock *sk)
{
	const struct facts *f = connection_of(p, sk);

	if (!f || !f->owner.process.pid)
		return;
	p->drop.process = f->owner.process;
	__builtin_memcpy(p->drop.command, f->owner.command, sizeof(p->drop.command));
	if (sk)
		return;
	p->drop.attribution = ATTRIBUTION_CONNECTION;
	p->drop.uid = f->owner.uid;
	p->drop.cgroup_id = f->owner.cgroup_id;
	p->cgroups = f->owner.cgroups;
}

/* The socket that listens for a TCP packet, or 0: the ends of such a socket are as
 * endpoints_of gives them. Needs the ports and the namespace.
 */
static __always_inline u64 listener_of(const struct packet *p)
{
	const struct drop *d = &p->drop;
	struct endpoints ends = {.local = d->destination, .local_port = d->destination_port};
	bool v4 = d->ether_type == ETH_P_IP;
	u64 sk;

	if (v4)
		address_from_v4(&ends.remote, 0);
	sk = socket_of_ends(&ends, d->netns);
	if (!sk && v4) {
		ends.local = ends.remote;
		sk = socket_of_ends(&ends, d->netns);
	}
	if (!sk) { /* of IPv6, which may take IPv4 too */
		__builtin_memset(&ends.local, 0, sizeof(ends.local));
		__builtin_memset(&ends.remote, 0, sizeof(ends.remote));
		sk = socket_of_ends(&ends, d->netns);
	}
	return sk;
}
