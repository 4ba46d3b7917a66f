/* The connections that are open. The monitor of connections keeps them; others ask
 * here whose a socket or a packet is: all share these maps (Monitor.Shares).
 */
#pragma once

#include "owner.h"
#include "socket.h"

#define MAX_SOCKETS 262144
#define SOCKETS_AT_HAND 16384

/* What every event of a connection tells. */
struct facts {
	u64 cookie;
	struct owner owner;
	struct endpoints ends;
	u32 attempt;
	u32 netns;
	u8 direction;
	u8 protocol;
	u8 attribution;
	u8 reset_by;
};

/* What is remembered of a TCP connection while it lives. */
struct connection {
	struct facts facts; /* the ends from ESTABLISHED on */
	u64 established_ns;
	u32 announced; /* 1 once the established event was sent; see may_announce */
	u8 late; /* established_ns is when it was seen first: how long it lasted is not known */
};

/* By address of the struct sock. An entry goes when the socket reaches CLOSE,
 * which every TCP socket does before its memory is used again.
 *
 * The first have their memory set aside, and one that ends leaves its own, still
 * in the CPU's cache, to the next: to make an entry and delete it costs a third
 * of what it does where memory is taken for each. More than these are rare, and
 * to set it aside for all would take 50 MB.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS_AT_HAND);
	__type(key, u64);
	__type(value, struct connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct connection);
} more_connections SEC(".maps");

/* The established TCP connections by a hash of their ends, for packets that have no
 * socket yet. It says only where to look: who uses it compares the ends. Where
 * there is no room, or two have one hash, a packet has no owner.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, u64); /* address of the struct sock */
} connections_by_ends SEC(".maps");

static __always_inline u64 hash_of_ends(const struct endpoints *ends, u32 netns)
{
	const u64 *words = (const u64 *)ends; /* local, remote */
	u64 hash = (u64)ends->local_port << 48 | (u64)ends->remote_port << 32 | netns;
	int i;

	for (i = 0; i < 4; i++)
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15; /* 2^64 by the golden ratio */
	return hash;
}

struct traffic {
	u64 bytes_sent;
	u64 bytes_received;
	u64 messages_sent;
	u64 messages_received;
};

struct udp_connection {
	struct facts facts; /* of one that existed, duration and bytes are not known */
	u64 established_ns;
	struct traffic traffic;
	u8 announced; /* the established event was sent */
};

/* By socket cookie: the hook that sees the release cannot see the struct sock. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct udp_connection);
} udp_connections SEC(".maps");

/* For those who only look. */
static __always_inline const struct facts *facts_of_tcp(u64 sk)
{
	struct connection *c = bpf_map_lookup_elem(&connections, &sk);

	if (!c)
		c = bpf_map_lookup_elem(&more_connections, &sk);
	return c ? &c->facts : NULL;
}

static __always_inline const struct facts *facts_of_udp(u64 cookie)
{
	struct udp_connection *c = bpf_map_lookup_elem(&udp_connections, &cookie);

	return c ? &c->facts : NULL;
}

static __always_inline const struct facts *facts_of_ends(const struct endpoints *ends, u32 netns)
{
	u64 hash = hash_of_ends(ends, netns);
	u64 *sk = bpf_map_lookup_elem(&connections_by_ends, &hash);
	const struct facts *f = sk ? facts_of_tcp(*sk) : NULL;

	if (!f || f->netns != netns || __builtin_memcmp(&f->ends, ends, sizeof(*ends)))
		return NULL;
	return f;
}
