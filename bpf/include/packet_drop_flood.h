/* A flood of like drops must not hide other events, and still be counted to the
 * last packet. So the first ALONE drops of a kind are told one by one; those that
 * follow within the same window of time are added up in a map.
 *
 * User space closes a window once a second, or when somebody asks: it puts the
 * other map in its place, waits until no program uses the first one any longer,
 * and takes what is in there (flood.go). Each drop is told or added, never both,
 * by atomic additions of which nobody reads the result: no drop is counted twice
 * or not at all, on however many CPUs it happens.
 */
#pragma once

#include "packet_drop_packet.h"

/* With KINDS, so many drops can be told one by one in a window that they fit in
 * the ring buffer (see monitor.h): 6,144 * 15 = 92,160.
 */
#define ALONE 15

/* Kinds of drops in a window. When there are so many, the sender no longer makes
 * a difference (a flood from addresses that are made up); when there are more
 * still, nor does the destination (a scan): the event then leaves them out. What
 * remains makes few kinds.
 */
#define KINDS 6144
#define KINDS_WITHOUT_SOURCE 7168
#define MAX_KINDS 8192

struct tally {
	u64 first_ns; /* CLOCK_BOOTTIME */
	u64 last_ns;
	u64 count;
	u64 length; /* of all together */
	u32 alone;  /* how many were told one by one */
	u16 source_port;
	u8 ports_differ; /* not all have that source port */
	u8 none;
};

struct packet_drop_event {
	struct tally tally;
	struct drop drop;
};

const struct packet_drop_event *unused_packet_drop_event __attribute__((unused));

struct window {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_KINDS);
	__type(key, struct drop);
	__type(value, struct tally);
};

struct window window_a SEC(".maps");
struct window window_b SEC(".maps");

/* Since Linux 5.0 an update of a map of maps returns when no program uses the
 * former one any longer (maybe_wait_bpf_programs in kernel/bpf/syscall.c).
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct window);
} window SEC(".maps") = {.values = {&window_a}};

/* Of the window that is open; user space sets both to 0 before it closes it. */
u32 kinds = 0;   /* about so many are in the map */
u32 counted = 0; /* 1 when a drop was added up */

/* Makes it a kind that fewer drops are different from. */
static __always_inline void leave_out_source(struct drop *d)
{
	__builtin_memset(&d->source, 0, sizeof(d->source));
	d->known &= ~KNOWN_SOURCE;
	d->cgroup_id = 0;
	d->uid = 0;
	d->attribution = ATTRIBUTION_NONE;
	__builtin_memset(&d->process, 0, sizeof(d->process));
	__builtin_memset(d->command, 0, sizeof(d->command));
}

static __always_inline void leave_out_destination(struct drop *d)
{
	__builtin_memset(&d->destination, 0, sizeof(d->destination));
	d->destination_port = 0;
	d->known &= ~(KNOWN_DESTINATION | KNOWN_PORTS);
}

static __always_inline struct tally *tally_of_kind(void *map, const struct drop *kind, u16 source_port, u32 limit)
{
	struct tally *tally = bpf_map_lookup_elem(map, kind);
	struct tally new = {.source_port = source_port};

	if (tally || kinds >= limit)
		return tally;
	/* Another CPU may be quicker: then that one counts the kind. */
	if (!bpf_map_update_elem(map, kind, &new, BPF_NOEXIST))
		__sync_fetch_and_add(&kinds, 1);
	return bpf_map_lookup_elem(map, kind);
}

/* Where drops like this one are added up; NULL: there is no room. */
static __always_inline struct tally *tally_of(const struct packet *p)
{
	struct drop kind = p->drop;
	struct tally *tally;
	u32 zero = 0;
	void *map = bpf_map_lookup_elem(&window, &zero);

	if (!map)
		return NULL;
	tally = tally_of_kind(map, &kind, p->source_port, KINDS);
	if (tally)
		return tally;
	leave_out_source(&kind);
	tally = tally_of_kind(map, &kind, p->source_port, KINDS_WITHOUT_SOURCE);
	if (tally)
		return tally;
	leave_out_destination(&kind);
	return tally_of_kind(map, &kind, p->source_port, MAX_KINDS);
}

static __always_inline bool tell(const struct packet *p, u64 now)
{
	struct packet_drop_event *e = room_for(sizeof(*e));

	if (!e)
		return false;
	__builtin_memset(&e->tally, 0, sizeof(e->tally));
	e->tally.first_ns = now;
	e->tally.last_ns = now;
	e->tally.count = 1;
	e->tally.length = p->length;
	e->tally.source_port = p->source_port;
	e->drop = p->drop;
	submit(e);
	return true;
}

static __always_inline void add(struct tally *tally, const struct packet *p, u64 now)
{
	count(COUNTER_RECORDED);
	__sync_fetch_and_add(&tally->count, 1);
	__sync_fetch_and_add(&tally->length, p->length);
	if (tally->source_port != p->source_port)
		tally->ports_differ = 1;
	/* Another CPU may be a moment before or after; the time may be as far off. */
	if (!tally->first_ns || now < tally->first_ns)
		tally->first_ns = now;
	if (now > tally->last_ns)
		tally->last_ns = now;
	if (!counted)
		counted = 1;
}

/* Tells of a drop, alone or among others. */
static __always_inline void record(const struct packet *p, u64 now)
{
	struct tally *tally = tally_of(p);

	if ((!tally || tally->alone < ALONE) && tell(p, now)) {
		if (tally)
			__sync_fetch_and_add(&tally->alone, 1);
	} else if (tally) {
		add(tally, p, now);
	} else {
		count(COUNTER_RING_BUFFER_FULL);
	}
}
