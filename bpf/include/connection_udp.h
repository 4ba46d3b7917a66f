/* Connected UDP sockets. */
#pragma once

#include "connection_calls.h"

static __always_inline void udp_established(struct udp_connection *c)
{
	struct connection_event *e = new_event(STATE_ESTABLISHED, &c->facts, c->established_ns);

	c->announced = 1;
	if (!e)
		return;
	e->known = KNOWN_CODE;
	submit(e);
}

static __always_inline void udp_closed(const struct udp_connection *c)
{
	struct end_event *e = new_end(STATE_CLOSED, &c->facts, bpf_ktime_get_boot_ns());

	if (!e)
		return;
	e->duration_ns = e->event.time_ns - c->established_ns;
	e->traffic = c->traffic;
	if (c->facts.attribution != ATTRIBUTION_EXISTING)
		e->event.known = KNOWN_DURATION | (counts_udp_bytes ? KNOWN_BYTES | KNOWN_MESSAGES : 0);
	submit(e);
}

/* Not inline, as failed_at_once. */
static __noinline int udp_end(u64 cookie)
{
	struct udp_connection *c = bpf_map_lookup_elem(&udp_connections, &cookie);

	if (!c)
		return 0;
	if (!c->announced)
		udp_established(c);
	udp_closed(c);
	forget_udp_ends(&c->facts);
	bpf_map_delete_elem(&udp_connections, &cookie);
	return 0;
}

/* Not inline, as failed_at_once. */
static __noinline int udp_connected(const struct sock *sk, u64 address)
{
	struct udp_connection c = {
		.facts = { .attribution = ATTRIBUTION_CONNECT, .direction = DIRECTION_OUTBOUND, .protocol = IPPROTO_UDP },
	};
	struct endpoints wanted = {};
	u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);

	if (cookie && bpf_map_lookup_elem(&udp_connections, &cookie)) {
		udp_end(cookie);
		next_attempt(cookie, 0);
	}
	if (wanted_remote(address, &wanted) == AF_UNSPEC)
		return 0; /* connect() to AF_UNSPEC disconnects */
	c.established_ns = bpf_ktime_get_boot_ns();
	c.facts.cookie = cookie;
	c.facts.attempt = attempt_of(cookie);
	c.facts.netns = netns_of(sk);
	owner_is_current(&c.facts.owner);
	endpoints_of(sk, &c.facts.ends);
	udp_established(&c);
	if (!cookie)
		return 0; /* the release cannot be seen: only "established" is told */
	if (bpf_map_update_elem(&udp_connections, &cookie, &c, BPF_ANY))
		count(COUNTER_MAP_FULL);
	else
		remember_udp_ends(&c.facts);
	return 0;
}

static __always_inline struct udp_connection *udp_connection_of(const struct sock *sk)
{
	u64 cookie;

	cookie = sk->__sk_common.skc_cookie.counter;
	return cookie ? bpf_map_lookup_elem(&udp_connections, &cookie) : NULL;
}

static __always_inline void add_sent(struct traffic *t, u64 bytes)
{
	__sync_fetch_and_add(&t->bytes_sent, bytes);
	__sync_fetch_and_add(&t->messages_sent, 1);
}

static __always_inline void add_received(struct traffic *t, u64 bytes)
{
	__sync_fetch_and_add(&t->bytes_received, bytes);
	__sync_fetch_and_add(&t->messages_received, 1);
}
