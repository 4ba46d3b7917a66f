/* What the monitor of connections remembers and tells: events, maps, constants.
 * How it all fits together is told in bpf/connection.c.
 */
#pragma once

#include "filter.h"
#include "open_connections.h"

#define EINTR 4
#define EEXIST 17
#define ENOTSOCK 88
#define EALREADY 114
#define EISCONN 106
#define EINPROGRESS 115
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

#define S_IFMT 0170000
#define S_IFSOCK 0140000

enum connection_state {
	STATE_ESTABLISHED = 1,
	STATE_FAILED,
	STATE_CLOSED,
	STATE_LISTENING,
	STATE_STOPPED, /* it listens no more */
};

enum direction {
	DIRECTION_NONE, /* of a socket that listens */
	DIRECTION_OUTBOUND,
	DIRECTION_INBOUND,
};

enum attribution {
	ATTRIBUTION_NONE, /* the owner is not known */
	ATTRIBUTION_CONNECT,
	ATTRIBUTION_ACCEPT,
	ATTRIBUTION_LISTENER,
	ATTRIBUTION_EXISTING, /* found at the start; the owner has pid 0 if it is not known */
	ATTRIBUTION_DATAGRAM, /* it sent or received what began a flow */
};

/* Who reset a connection, seen from this host. */
enum reset_by {
	RESET_NONE, /* nobody did, or it is not known */
	RESET_LOCAL,
	RESET_REMOTE,
};

/* Which of the fields of an event hold a known value. */
enum known {
	KNOWN_CODE = 1 << 0,
	KNOWN_DURATION = 1 << 1,
	KNOWN_BYTES = 1 << 2,
	KNOWN_TCP = 1 << 3, /* retransmits and rtt_us */
	KNOWN_MESSAGES = 1 << 4,
};

struct connection_event {
	u64 time_ns; /* CLOCK_BOOTTIME */
	struct facts facts;
	s32 return_code;
	u8 state;
	u8 known;
};

/* An end tells more. All else is spared the bytes: they are written to memory that is
 * not in the CPU's cache.
 */
struct end_event {
	struct connection_event event;
	u64 duration_ns;
	u32 retransmits;
	u32 rtt_us;
	struct traffic traffic;
};

/* So that bpf2go finds the types. */
const struct connection_event *unused_connection_event __attribute__((unused));
const struct end_event *unused_end_event __attribute__((unused));

/* This kernel lets a tp_btf program ask for a socket's cookie, and exchange
 * atomically (both 5.12 and later).
 */
const volatile bool has_cookie_helper = true;
const volatile bool has_exchange = true;

/* How many are in more_connections. All monitors that share these maps share it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, s64);
} crowd SEC(".maps");

static __always_inline void add_to_crowd(s64 n)
{
	u32 first = 0;
	s64 *crowded = bpf_map_lookup_elem(&crowd, &first);

	if (crowded)
		__sync_fetch_and_add(crowded, n);
}

/* Without exchanges, all connections are in there. */
static __always_inline bool is_crowded(void)
{
	u32 first = 0;
	volatile s64 *crowded = bpf_map_lookup_elem(&crowd, &first);

	return !has_exchange || unlikely(crowded && *crowded);
}

static __always_inline struct connection *connection_of(u64 sk)
{
	struct slot *slot = slot_of(sk);

	if (slot && slot->sk == sk)
		return &slot->connection;
	return is_crowded() ? bpf_map_lookup_elem(&more_connections, &sk) : NULL;
}

static __always_inline void forget(u64 sk)
{
	struct slot *slot = slot_of(sk);

	if (has_exchange && slot && slot->sk == sk)
		__sync_lock_test_and_set(&slot->sk, 0); /* after all that was read of it */
	else if (is_crowded() && !bpf_map_delete_elem(&more_connections, &sk))
		add_to_crowd(-1);
}

/* Of those who remember one socket at the same time, one has its slot, and the others
 * wait for it; none of them is interrupted by another.
 */
#define FILLED_WITHIN 200

enum taken {
	SLOT_TAKEN,
	SLOT_HAS_SOCKET,
	SLOT_OF_ANOTHER,
};

static __always_inline enum taken take_slot(struct slot *slot, u64 sk, const struct connection *c)
{
	u64 had = __sync_val_compare_and_swap(&slot->sk, 0, sk | SLOT_IS_FILLED);
	int i;

	if (unlikely(had && (had & ~SLOT_IS_FILLED) != sk))
		return SLOT_OF_ANOTHER;
	if (unlikely(had)) {
		for (i = 0; i < FILLED_WITHIN && *(volatile u64 *)&slot->sk == (sk | SLOT_IS_FILLED); i++)
			;
		return SLOT_HAS_SOCKET;
	}
	slot->connection = *c;
	__sync_lock_test_and_set(&slot->sk, sk);
	return SLOT_TAKEN;
}

/* False: there is no room, which is counted. */
static __always_inline bool remember_crowded(u64 sk, const struct connection *c)
{
	int error;

	add_to_crowd(1); /* before anybody looks for it */
	error = update(&more_connections, &sk, c, BPF_NOEXIST);
	if (error)
		add_to_crowd(-1);
	if (error && error != -EEXIST)
		count(COUNTER_MAP_FULL);
	return !error;
}

/* Of a connection that is still remembered when its socket's memory is used again. */
static __always_inline void end_was_missed(const struct connection *c)
{
	count(COUNTER_END_MISSED);
	forget_ends(&c->facts);
}

/* False: there is no room, which is counted, or with flag BPF_NOEXIST it is there
 * already. With BPF_ANY, what is there is another connection whose end was missed:
 * its socket's memory is used again.
 */
static __always_inline bool remember(u64 sk, const struct connection *c, u64 flags)
{
	struct connection *missed = is_crowded() ? bpf_map_lookup_elem(&more_connections, &sk) : NULL;
	struct slot *slot = slot_of(sk);
	enum taken taken;

	if (missed) {
		if (flags == BPF_NOEXIST)
			return false;
		end_was_missed(missed);
		bpf_map_delete_elem(&more_connections, &sk);
		add_to_crowd(-1);
	}
	if (!has_exchange || unlikely(!slot))
		return remember_crowded(sk, c);
	taken = take_slot(slot, sk, c);
	if (unlikely(taken == SLOT_OF_ANOTHER))
		return remember_crowded(sk, c);
	if (taken == SLOT_TAKEN)
		return true;
	if (flags == BPF_NOEXIST)
		return false;
	end_was_missed(&slot->connection);
	slot->connection = *c;
	return true;
}

/* How often a socket was connected before, by cookie, and OUTCOME_TOLD. Only sockets
 * that failed or were disconnected are here, most of which are closed and never come
 * back, so old entries may go: see attempt_of_used.
 */
#define ATTEMPTS_FORGOTTEN (1U << 22) /* the number is no count, but one that was not used before; an id has room for 23 bits */
#define OUTCOME_TOLD (1U << 31) /* what became of it was told, and no connect() has returned it yet */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u32);
} attempts SEC(".maps");

/* The hooks that count what UDP sockets exchange are attached. */
const volatile bool counts_udp_bytes = false;

/* Where the program's own API listens, if connections to it are left out; else
 * port is 0.
 */
struct listen_address {
	struct address ip; /* zeros: any address of this host */
	u32 netns;
	u16 port;
};

const volatile struct listen_address own_api = {};

/* Marks the numbers that stand in for a cookie. */
#define NO_COOKIE (1ULL << 63)

/* A number for a connection whose socket has no cookie, never used twice in a
 * boot: two CPUs may read the same time. After 2 years of uptime bits of the
 * time are lost, and after 128 CPUs those of the CPU: unlikely to meet again.
 */
static __always_inline u64 number_without_cookie(void)
{
	return NO_COOKIE | bpf_ktime_get_boot_ns() << 7 | (bpf_get_smp_processor_id() & 127);
}

/* A socket that has no cookie yet was never connected before. */
static __always_inline bool has_cookie(const struct sock *sk)
{
	return sk->__sk_common.skc_cookie.counter;
}

static __always_inline u64 cookie_of(struct sock *sk)
{
	u64 cookie;

	if (has_cookie_helper)
		return bpf_get_socket_cookie(sk);
	cookie = sk->__sk_common.skc_cookie.counter; /* outbound: given by the cgroup hook */
	return cookie ? cookie : number_without_cookie();
}

/* The entry of a socket that gets established is that of another, which had this
 * memory before. A cookie that stands in for another (NO_COOKIE) tells nothing.
 */
static __always_inline bool is_of_another(const struct connection *c, const struct sock *sk)
{
	return c->established_ns ||
	       (!(c->facts.cookie & NO_COOKIE) && c->facts.cookie != sk->__sk_common.skc_cookie.counter);
}

/* Without has_exchange: inbound connections that were announced a moment ago, by
 * their number.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, u8);
} announcements SEC(".maps");

/* For hooks that cannot give a socket its cookie. */
static __always_inline u64 number_of(const struct sock *sk)
{
	u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);

	return cookie ? cookie : number_without_cookie();
}

/* True for one of those who want to announce a connection: the accept, the end and
 * the iterator may run on several CPUs at once.
 */
static __always_inline bool may_announce(struct connection *c)
{
	u8 value = 1;

	if (c->announced)
		return false;
	if (has_exchange)
		return !__sync_lock_test_and_set(&c->announced, 1);
	c->announced = 1;
	return !bpf_map_update_elem(&announcements, &c->facts.cookie, &value, BPF_NOEXIST);
}

static __always_inline u32 attempt_of(u64 cookie)
{
	u32 *n = bpf_map_lookup_elem(&attempts, &cookie);

	return n ? *n & ~OUTCOME_TOLD : 0;
}

/* Of a socket that has a cookie, at SYN_SENT. A sequence number is left from an
 * earlier connection: if its entry has gone, its attempts are numbered anew, as no two
 * may have the same id, from the lowest bits of the time in microseconds. (Linux clears
 * the sequence number of a connection that was established when the next one goes to
 * another address.)
 */
static __always_inline u32 attempt_of_used(const struct tcp_sock *tp, u64 cookie)
{
	u32 *n = bpf_map_lookup_elem(&attempts, &cookie), anew;

	if (n)
		return *n & ~OUTCOME_TOLD;
	if (!tp->write_seq)
		return 0;
	anew = ATTEMPTS_FORGOTTEN | (bpf_ktime_get_boot_ns() >> 10 & (ATTEMPTS_FORGOTTEN - 1));
	bpf_map_update_elem(&attempts, &cookie, &anew, BPF_ANY);
	return anew;
}

/* told is OUTCOME_TOLD or 0. */
static __always_inline void next_attempt(u64 cookie, u32 told)
{
	u32 n = (attempt_of(cookie) + 1) | told;

	bpf_map_update_elem(&attempts, &cookie, &n, BPF_ANY);
}

/* True if connect() returns a failure of an attempt that was told of, and only for the first that
 * does so.
 */
static __always_inline bool was_told(const struct sock *sk)
{
	u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	u32 *n = bpf_map_lookup_elem(&attempts, &cookie);

	if (!n || !(*n & OUTCOME_TOLD))
		return false;
	*n &= ~OUTCOME_TOLD;
	return true;
}

static __always_inline bool same_address(const struct address *a, const struct address *b)
{
	return !__builtin_memcmp(a, b, sizeof(*a));
}

/* One end is that of the program's own API. */
static __always_inline bool is_own_api(const struct endpoints *ends, u32 netns)
{
	struct address own, any = {};

	if (!own_api.port || !unlikely(netns == own_api.netns) ||
	    (ends->local_port != own_api.port && ends->remote_port != own_api.port))
		return false;
	__builtin_memcpy(&own, (const void *)&own_api.ip, sizeof(own));
	if (!same_address(&own, &any))
		return (ends->local_port == own_api.port && same_address(&ends->local, &own)) ||
		       (ends->remote_port == own_api.port && same_address(&ends->remote, &own));
	return ends->local_port == own_api.port ||
	       (ends->remote_port == own_api.port &&
		(is_loopback(&ends->remote) || same_address(&ends->remote, &ends->local)));
}

/* NULL: it is left out, or there is no room; both are counted. */
static __always_inline void *new_event_of(u64 size, u8 state, const struct facts *f, u64 time_ns)
{
	struct subject subject = {.owner = &f->owner, .ends = &f->ends, .interface = f->owner.command, .known = RULES_OF_ENDS};
	struct connection_event *e;

	/* Of one that existed, several processes may hold the socket: then none is known. */
	if (f->attribution != ATTRIBUTION_NONE && f->owner.process.pid)
		subject.known |= RULES_OF_PROCESS;
	/* That the program listens is told: it is no traffic. */
	if ((f->protocol == IPPROTO_TCP && is_own_api(&f->ends, f->netns) && f->direction != DIRECTION_NONE) || is_left_out(&subject)) {
		count(COUNTER_EXCLUDED);
		return NULL;
	}
	e = reserve(size);
	if (!e)
		return NULL;
	e->time_ns = time_ns;
	e->facts = *f;
	if (!f->cookie)
		e->facts.cookie = number_without_cookie();
	e->return_code = 0;
	e->state = state;
	e->known = 0;
	return e;
}

static __always_inline struct connection_event *new_event(u8 state, const struct facts *f, u64 time_ns)
{
	return new_event_of(sizeof(struct connection_event), state, f, time_ns);
}

static __always_inline struct end_event *new_end(u8 state, const struct facts *f, u64 time_ns)
{
	struct end_event *e = new_event_of(sizeof(*e), state, f, time_ns);

	if (!e)
		return NULL;
	e->duration_ns = 0;
	e->retransmits = 0;
	e->rtt_us = 0;
	__builtin_memset(&e->traffic, 0, sizeof(e->traffic));
	return e;
}
