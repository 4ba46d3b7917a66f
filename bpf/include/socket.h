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

/* Written by words, as addresses are copied: a CPU waits where it reads as one what
 * was just written in parts. The first byte is the lowest of a word.
 */
static __always_inline void address_from_v4(struct address *a, u32 ip)
{
	u64 words[2] = { 0, 0xffff0000 | (u64)ip << 32 };

	__builtin_memcpy(a, words, sizeof(*a));
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
	const u32 *parts = ip->in6_u.u6_addr32;
	u64 words[2] = { parts[0] | (u64)parts[1] << 32, parts[2] | (u64)parts[3] << 32 };

	__builtin_memcpy(a, words, sizeof(*a));
}

/* The same of a socket whose type the verifier knows: then it can be read without
 * calls of helpers, which is much of what such a program costs. sk is what a
 * tracepoint gives; newer kernels know that it is there, and do not check the address
 * at each access, as they do with tp.
 */
static __always_inline void endpoints_of_tcp(const struct sock *sk, const struct tcp_sock *tp, struct endpoints *e)
{
	const struct sock_common *common = &sk->__sk_common;

	if (common->skc_family == AF_INET6) {
		copy_v6(&e->local, &common->skc_v6_rcv_saddr);
		copy_v6(&e->remote, &common->skc_v6_daddr);
	} else {
		address_from_v4(&e->local, common->skc_rcv_saddr);
		address_from_v4(&e->remote, common->skc_daddr);
	}
	e->local_port = bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	e->remote_port = bpf_ntohs(common->skc_dport);
}

/* NULL: it is no TCP socket. */
static __always_inline const struct tcp_sock *tcp_sock_of(struct sock *sk)
{
	if (!bpf_rdonly_cast)
		return bpf_skc_to_tcp_sock(sk);
	return sk->sk_protocol == IPPROTO_TCP ? bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock)) : NULL;
}

static __always_inline u32 netns_of(const struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}
