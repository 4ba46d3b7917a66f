/* Reading addresses and ports. IPv4 addresses are held v4-mapped, so that an
 * address is always 16 bytes.
 */
#pragma once

#include "monitor.h"

#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10

struct address {
	u8 ip[16];
};

static __always_inline void address_from_v4(struct address *a, u32 ip)
{
	__builtin_memset(a->ip, 0, 10);
	a->ip[10] = 0xff;
	a->ip[11] = 0xff;
	__builtin_memcpy(&a->ip[12], &ip, sizeof(ip));
}

/* One end or both of a connection; ports in host order, 0 where not known. */
struct endpoints {
	struct address local;
	struct address remote;
	u16 local_port;
	u16 remote_port;
};

/* The port is read from inet_sport: skc_num is already 0 when a socket that
 * closes reports its change of state (inet_put_port comes first).
 */
static __always_inline void endpoints_of(const struct sock *sk, struct endpoints *e)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(&e->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&e->remote, sk, __sk_common.skc_v6_daddr);
	} else {
		address_from_v4(&e->local, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
		address_from_v4(&e->remote, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	}
	e->local_port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	e->remote_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

static __always_inline void copy_v6(struct address *a, const struct in6_addr *ip)
{
	u32 *words = (u32 *)a->ip;

	words[0] = ip->in6_u.u6_addr32[0];
	words[1] = ip->in6_u.u6_addr32[1];
	words[2] = ip->in6_u.u6_addr32[2];
	words[3] = ip->in6_u.u6_addr32[3];
}

/* The same of a socket whose type the verifier knows: then it can be read without
 * calls of helpers, which is much of what such a program costs.
 */
static __always_inline void endpoints_of_tcp(const struct tcp_sock *tp, struct endpoints *e)
{
	const struct sock_common *sk = &tp->inet_conn.icsk_inet.sk.__sk_common;

	if (sk->skc_family == AF_INET6) {
		copy_v6(&e->local, &sk->skc_v6_rcv_saddr);
		copy_v6(&e->remote, &sk->skc_v6_daddr);
	} else {
		address_from_v4(&e->local, sk->skc_rcv_saddr);
		address_from_v4(&e->remote, sk->skc_daddr);
	}
	e->local_port = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	e->remote_port = bpf_ntohs(sk->skc_dport);
}

static __always_inline u32 netns_of(const struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}
