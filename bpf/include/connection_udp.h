/* Connected UDP sockets. */
#pragma once

#include "connection_calls.h"

static __always_inline struct connection_event *new_udp_event(u64 cookie, u8 state, const struct udp_connection *c)
{
	struct known_connection known = {
		.cookie = cookie,
		.attempt = c->attempt,
		.owner = &c->owner,
		.attribution = c->attribution,
		.direction = DIRECTION_OUTBOUND,
		.protocol = IPPROTO_UDP,
		.netns = c->netns,
		.ends = &c->ends,
	};

	return new_event(state, &known);
}

static __always_inline void udp_established(u64 cookie, struct udp_connection *c)
{
	struct connection_event *e = new_udp_event(cookie, STATE_ESTABLISHED, c);

	c->announced = 1;
	if (!e)
		return;
	e->time_ns = c->established_ns;
	e->return_code = 0;
	e->known = KNOWN_CODE;
	submit(e);
}

static __always_inline void udp_closed(u64 cookie, const struct udp_connection *c)
{
	struct connection_event *e = new_udp_event(cookie, STATE_CLOSED, c);

	if (!e)
		return;
	e->duration_ns = e->time_ns - c->established_ns;
	e->bytes_sent = c->bytes_sent;
	e->bytes_received = c->bytes_received;
	if (c->attribution != ATTRIBUTION_EXISTING)
		e->known = KNOWN_DURATION | (counts_udp_bytes ? KNOWN_BYTES : 0);
	submit(e);
}

/* Not inline, as failed_at_once. */
static __noinline int udp_end(u64 cookie)
{
	struct udp_connection *c = bpf_map_lookup_elem(&udp_connections, &cookie);

	if (!c)
		return 0;
	if (!c->announced)
		udp_established(cookie, c);
	udp_closed(cookie, c);
	bpf_map_delete_elem(&udp_connections, &cookie);
	return 0;
}

/* Not inline, as failed_at_once. */
static __noinline int udp_connected(const struct sock *sk, const struct connect_call *call)
{
	struct udp_connection c = { .attribution = ATTRIBUTION_CONNECT };
	struct endpoints wanted = {};
	u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);

	if (cookie && bpf_map_lookup_elem(&udp_connections, &cookie)) {
		udp_end(cookie);
		next_attempt(cookie);
	}
	if (wanted_remote(call->address, &wanted) == AF_UNSPEC)
		return 0; /* connect() to AF_UNSPEC disconnects */
	c.established_ns = bpf_ktime_get_boot_ns();
	c.attempt = attempt_of(cookie);
	c.netns = netns_of(sk);
	owner_is_current(&c.owner);
	endpoints_of(sk, &c.ends);
	udp_established(cookie, &c);
	/* Without a cookie the release cannot be seen: only "established" is told. */
	if (cookie && bpf_map_update_elem(&udp_connections, &cookie, &c, BPF_ANY))
		count(COUNTER_MAP_FULL);
	return 0;
}

static __always_inline struct udp_connection *udp_connection_of(struct sock *sk)
{
	u64 cookie;

	if (sk->sk_protocol != IPPROTO_UDP)
		return NULL;
	cookie = sk->__sk_common.skc_cookie.counter;
	return cookie ? bpf_map_lookup_elem(&udp_connections, &cookie) : NULL;
}
