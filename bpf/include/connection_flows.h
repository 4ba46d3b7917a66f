/* UDP without connect(): what a process exchanges with a peer, over one socket, is
 * a flow. It is "established" with the first datagram and "closed" when there was
 * none for a while.
 *
 * The peer is told by hooks that see the address, before a datagram leaves and after
 * one came; how it ended and how long it was by the tracepoints at the end of the
 * same call. So each call passes two hooks, in the same thread.
 */
#pragma once

#include "connection_udp.h"

#define EAGAIN 11
#define MSG_PEEK 2
#define MSG_ERRQUEUE 0x2000
#define MAX_FLOWS 65536

struct flow_key {
	u64 cookie;
	struct address peer;
	u32 pid;
	u16 port;
	u16 none;
};

struct flow {
	struct facts facts;
	u64 first_ns;
	u64 last_ns;
	struct traffic traffic;
	u8 failed; /* nothing could be sent yet */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* A datagram between the two hooks. */
struct datagram {
	u64 cookie; /* of its socket; 0: there is none */
	struct address peer;
	u16 port;
};

/* By thread. The entry is used again by the next call. A call that waits has not
 * come to the first hook yet, so that old entries may go.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct datagram);
} datagrams SEC(".maps");

/* A flow is closed when it had no datagram for so long. */
const volatile u64 udp_idle_ns = 60000000000;

static __always_inline void on_datagram(struct bpf_sock_addr *ctx, const struct address *peer)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct datagram *d = bpf_map_lookup_elem(&datagrams, &thread);
	struct datagram new = { .cookie = bpf_get_socket_cookie(ctx), .peer = *peer, .port = bpf_ntohs(ctx->user_port) };

	if (d)
		*d = new;
	else if (bpf_map_update_elem(&datagrams, &thread, &new, BPF_ANY))
		count(COUNTER_MAP_FULL);
}

static __always_inline void on_datagram4(struct bpf_sock_addr *ctx)
{
	struct address peer;

	address_from_v4(&peer, ctx->user_ip4);
	on_datagram(ctx, &peer);
}

static __always_inline void on_datagram6(struct bpf_sock_addr *ctx)
{
	struct address peer;
	u32 *words = (u32 *)peer.ip;

	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	on_datagram(ctx, &peer);
}

static __always_inline void flow_begins(struct flow *f, int error)
{
	f->facts.cookie = number_without_cookie(); /* a socket has many flows */
	f->first_ns = bpf_ktime_get_boot_ns();
	f->last_ns = f->first_ns;
	f->failed = error < 0;
}

/* Tells of the first datagram; error is what sending it gave, or 0. */
static __always_inline void flow_began(const struct flow *f, int error)
{
	struct connection_event *e;

	e = new_event(error < 0 ? STATE_FAILED : STATE_ESTABLISHED, &f->facts, f->first_ns);
	if (!e)
		return;
	e->return_code = error;
	e->known = KNOWN_CODE;
	submit(e);
}

static __noinline int new_flow(const struct sock *sk, const struct flow_key *key, u8 direction, int error)
{
	struct flow new = {
		.facts = { .direction = direction, .attribution = ATTRIBUTION_DATAGRAM, .protocol = IPPROTO_UDP },
	};

	if (!sk || !key)
		return 0;
	new.facts.netns = netns_of(sk);
	owner_is_current(&new.facts.owner);
	endpoints_of(sk, &new.facts.ends);
	new.facts.ends.remote = key->peer;
	new.facts.ends.remote_port = key->port;
	flow_begins(&new, error);
	switch (update(&flows, key, &new, BPF_NOEXIST)) {
	case 0:
		flow_began(&new, error);
		break;
	case -EEXIST: /* another thread was faster */
		break;
	default:
		count(COUNTER_MAP_FULL);
	}
	return 0;
}

/* The flow of the datagram that this thread has sent or received by the call that
 * ends here, with error. NULL if it has none: the datagram is one of the connection
 * c, if that is not NULL, or did not name a peer, or failed.
 */
static __always_inline struct flow *flow_of(const struct sock *sk, const struct udp_connection *c, u8 direction, int error)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct datagram *d = bpf_map_lookup_elem(&datagrams, &thread);
	struct flow_key key = { .cookie = sk->__sk_common.skc_cookie.counter, .pid = thread >> 32 };
	struct flow *f;

	if (!d || !d->cookie || d->cookie != key.cookie)
		return NULL;
	d->cookie = 0;
	if (error == -EAGAIN || (error && direction == DIRECTION_INBOUND))
		return NULL;
	key.peer = d->peer;
	key.port = d->port;
	if (c && key.port == c->facts.ends.remote_port && same_address(&key.peer, &c->facts.ends.remote))
		return NULL;
	f = bpf_map_lookup_elem(&flows, &key);
	if (!f) {
		new_flow(sk, &key, direction, error);
		f = bpf_map_lookup_elem(&flows, &key);
	} else if (f->failed && !error) {
		flow_begins(f, 0);
		flow_began(f, 0);
	}
	if (f)
		f->last_ns = bpf_ktime_get_boot_ns();
	return error ? NULL : f;
}

static __always_inline void flow_closed(const struct flow *f)
{
	struct end_event *e = new_end(STATE_CLOSED, &f->facts, f->last_ns);

	if (!e)
		return;
	e->duration_ns = f->last_ns - f->first_ns;
	e->traffic = f->traffic;
	e->event.known = KNOWN_DURATION | KNOWN_BYTES | KNOWN_MESSAGES;
	submit(e);
}
