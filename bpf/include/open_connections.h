/* The connections that are open. The monitor of connections keeps them; others ask
 * here whose a socket or a packet is: all share these maps (Monitor.Shares).
 */
#pragma once

#include "owner.h"
#include "socket.h"

#define MAX_SOCKETS 262144
#define SOCKETS_AT_HAND_BITS 14
#define SOCKETS_AT_HAND (1 << SOCKETS_AT_HAND_BITS)

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
	u8 failed; /* it fell back to CLOSE without an sk_err: the return of connect() tells why */
};

/* The connection of a socket, by the address of the struct sock. It goes when the
 * socket reaches CLOSE, which every TCP socket does before its memory is used again.
 *
 * Each address has one slot, which it shares with others: who finds it in use takes
 * an entry of more_connections. A slot is found without a helper, taken and left by
 * an atomic exchange, and whoever is next finds it in the CPU's cache: a hash map in
 * its place made up 40 % of what a change of state cost.
 */
struct slot {
	u64 sk; /* 0: in use by nobody; with SLOT_IS_FILLED, its connection is not there yet */
	struct connection connection;
};

#define SLOT_IS_FILLED 1ULL /* the address of a struct sock is even */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOCKETS_AT_HAND);
	__type(key, u32);
	__type(value, struct slot);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct connection);
} more_connections SEC(".maps");

#define GOLDEN_RATIO 0x9e3779b97f4a7c15 /* 2^64 divided by it */

/* NULL: tests make the map smaller. */
static __always_inline struct slot *slot_of(u64 sk)
{
	u32 i = sk * GOLDEN_RATIO >> (64 - SOCKETS_AT_HAND_BITS);

	return bpf_map_lookup_elem(&connections, &i);
}

/* The established TCP connections, and the sockets that listen, by a hash of their ends,
 * for packets that have no socket yet. It says only where to look: who uses it compares the ends. Where two
 * have one hash, a packet of one of them has no owner. There is room for all.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SOCKETS_AT_HAND + MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, u64); /* address of the struct sock */
} connections_by_ends SEC(".maps");

static __always_inline u64 hash_of_ends(const struct endpoints *ends, u32 netns)
{
	const u64 *words = (const u64 *)ends; /* local, remote */
	u64 hash = (u64)ends->local_port << 48 | (u64)ends->remote_port << 32 | netns;
	int i;

	for (i = 0; i < 4; i++)
		hash = (hash ^ words[i]) * GOLDEN_RATIO;
	return hash;
}

static __always_inline bool is_loopback(const struct address *a)
{
	static const u8 v4_mapped[13] = {[10] = 0xff, [11] = 0xff, [12] = 127};
	static const u8 v6[16] = {[15] = 1};

	return !__builtin_memcmp(a->ip, v4_mapped, sizeof(v4_mapped)) || !__builtin_memcmp(a->ip, v6, sizeof(v6));
}

/* Loopback is left out of the index by ends: its packets are hardly ever dropped
 * before their socket is known, and its connections are so short that this would be
 * a third of their cost.
 */
static __always_inline bool has_index(const struct facts *f)
{
	return !is_loopback(&f->ends.remote);
}

/* Those that have something in common. */
struct sockets {
	u64 only; /* the only one; 0: there are or were several */
	u64 count;
};

static __always_inline void add_socket(void *map, u64 key, u64 socket)
{
	struct sockets new = {.only = socket, .count = 1}, *s = bpf_map_lookup_elem(map, &key);

	if (!s) {
		bpf_map_update_elem(map, &key, &new, BPF_ANY);
		return;
	}
	s->only = 0;
	__sync_fetch_and_add(&s->count, 1);
}

static __always_inline void remove_socket(void *map, u64 key)
{
	struct sockets *s = bpf_map_lookup_elem(map, &key);

	if (!s)
		return;
	__sync_fetch_and_add(&s->count, -1);
	if (!s->count)
		bpf_map_delete_elem(map, &key);
}

/* The sockets that listen, by port and namespace: mostly it is one, which is found at
 * once, whatever the address.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct sockets);
} listening_ports SEC(".maps");

static __always_inline u64 port_of_netns(u32 netns, u16 port)
{
	return (u64)netns << 16 | port;
}

static __always_inline bool listens(const struct facts *f)
{
	return !f->ends.remote_port;
}

/* From ESTABLISHED or LISTEN on. */
static __always_inline void remember_ends(u64 sk, const struct facts *f)
{
	u64 hash;

	if (!has_index(f))
		return;
	hash = hash_of_ends(&f->ends, f->netns);
	bpf_map_update_elem(&connections_by_ends, &hash, &sk, BPF_ANY);
	if (listens(f))
		add_socket(&listening_ports, port_of_netns(f->netns, f->ends.local_port), sk);
}

static __always_inline void forget_ends(const struct facts *f)
{
	u64 hash;

	if (!has_index(f))
		return;
	hash = hash_of_ends(&f->ends, f->netns);
	bpf_map_delete_elem(&connections_by_ends, &hash);
	if (listens(f))
		remove_socket(&listening_ports, port_of_netns(f->netns, f->ends.local_port));
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

/* The connected UDP sockets, by a hash of their ends, as connections_by_ends. Several
 * may have the same ends (SO_REUSEPORT): then a packet has no owner.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct sockets);
} udp_by_ends SEC(".maps");

static __always_inline void remember_udp_ends(const struct facts *f)
{
	if (has_index(f))
		add_socket(&udp_by_ends, hash_of_ends(&f->ends, f->netns), f->cookie);
}

static __always_inline void forget_udp_ends(const struct facts *f)
{
	if (has_index(f))
		remove_socket(&udp_by_ends, hash_of_ends(&f->ends, f->netns));
}

static __always_inline bool has_ends(const struct facts *f, const struct endpoints *ends, u32 netns)
{
	return f && f->netns == netns && !__builtin_memcmp(&f->ends, ends, sizeof(*ends));
}

/* For those who only look. */
static __always_inline const struct facts *facts_of_tcp(u64 sk)
{
	struct slot *slot = slot_of(sk);
	struct connection *c;

	if (slot && slot->sk == sk)
		return &slot->connection.facts;
	c = bpf_map_lookup_elem(&more_connections, &sk);
	return c ? &c->facts : NULL;
}

static __always_inline const struct facts *facts_of_udp(u64 cookie)
{
	struct udp_connection *c = bpf_map_lookup_elem(&udp_connections, &cookie);

	return c ? &c->facts : NULL;
}

/* The address of the socket that has these ends, or 0. */
static __always_inline u64 socket_of_ends(const struct endpoints *ends, u32 netns)
{
	u64 hash = hash_of_ends(ends, netns);
	u64 *sk = bpf_map_lookup_elem(&connections_by_ends, &hash);
	const struct facts *f = sk ? facts_of_tcp(*sk) : NULL;

	return has_ends(f, ends, netns) ? *sk : 0;
}

static __always_inline const struct facts *udp_of_ends(const struct endpoints *ends, u32 netns)
{
	u64 hash = hash_of_ends(ends, netns);
	struct sockets *s = bpf_map_lookup_elem(&udp_by_ends, &hash);
	const struct facts *f = s ? facts_of_udp(s->only) : NULL;

	return has_ends(f, ends, netns) ? f : NULL;
}
