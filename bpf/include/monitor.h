/* What every monitor needs: kernel types, the ring buffer, counters. A monitor
 * includes this file first.
 */
#pragma once

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* What hardly ever happens: its code is put out of the way of the rest. */
#define unlikely(condition) __builtin_expect(!!(condition), 0)

#define CACHE_LINE 64

/* Some helpers are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Events wait to be read in rings, which the CPUs share out among themselves: two that
 * write into one wait for each other, and for the memory that the other has written.
 * "events" is the first of them, and says how many bytes all together have; the runtime
 * shares these out, and makes the others (internal/bpf/rings.go). 16 MiB hold some
 * 95,000 dropped packets, or 110,000 events of connections.
 */
struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
};

struct ring events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, u32);
	__array(values, struct ring);
} rings SEC(".maps") = {.values = {&events}};

#define MAX_RINGS 16

const volatile u32 last_ring = 0; /* how many there are, a power of two, less one; set by the runtime */

/* One row of counters a CPU. The names and meanings are those of
 * internal/bpf/counters.go; keep the order the same.
 */
enum counter {
	COUNTER_RING_BUFFER_FULL, /* not recorded: the reader is too slow */
	COUNTER_MAP_FULL,         /* not recorded: more sockets at once than the map holds */
	COUNTER_FILTERED,         /* left out by a documented rule */
	COUNTER_EXCLUDED,         /* left out by a rule of the configuration */
	COUNTER_RECORDED,         /* put into the ring buffer, or added to what will be told */
	COUNTER_END_MISSED,       /* not recorded: this program was not run when something ended */
	COUNTER_NAMES_FULL,       /* recorded, but without names: see names.h */
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

static __always_inline void count(u32 counter)
{
	u64 *n = bpf_map_lookup_elem(&counters, &counter);

	/* An interrupt on this CPU may count as well, so add atomically. */
	if (n)
		__sync_fetch_and_add(n, 1);
}

/* This kernel hands out the current task with its type (5.11 and later): then it
 * can be read without calls of helpers, which are much of what a program costs.
 */
static __always_inline bool has_task_btf(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf);
}

extern void *bpf_rdonly_cast(const void *object, u32 type) __ksym __weak;

/* A field of an object of the kernel that is reached by pointers whose type the
 * verifier does not know. Linux 6.2 and later can be told, and read it without a
 * call; like a probe read, that gives 0 where there is no memory.
 */
#define READ(type, object, field)                                                                        \
	({                                                                                               \
		typeof(((type *)0)->field) __value;                                                      \
		if (bpf_rdonly_cast)                                                                     \
			__value = ((type *)bpf_rdonly_cast(object, bpf_core_type_id_kernel(type)))->field; \
		else                                                                                     \
			__value = BPF_CORE_READ((type *)(object), field);                                \
		__value;                                                                                 \
	})

/* A field that is a pointer. The verifier would know the type of what it points to,
 * and not let one calculate with it, on some kernels only: so it is read as a number.
 */
#define READ_POINTER(type, object, field) \
	((void *)READ(struct timespec64, (void *)(object) + bpf_core_field_offset(type, field), tv_sec))

/* bpf_map_update_elem for those who look at the error: before Linux 6.4, only the
 * lower half of what that returns is the error.
 */
static __always_inline int update(void *map, const void *key, const void *value, u64 flags)
{
	return bpf_map_update_elem(map, key, value, flags);
}

volatile u64 here = 0; /* its own address, once somebody has asked */

/* A pointer as a number, which the verifier lets one calculate with, and hand to
 * functions that are not static: these are verified once, for any arguments, and not
 * again for each way to each of their calls, but up to Linux 5.11 they take no
 * pointers. The verifier knows the difference of two pointers as a number.
 */
static __always_inline u64 address_of(const volatile void *pointer)
{
	u64 distance = (u64)pointer - (u64)&here;

	barrier_var(distance);
	if (unlikely(!here))
		here = (u64)&here;
	return distance + here;
}

static __always_inline void *ring(u32 i)
{
	i &= last_ring;
	return bpf_map_lookup_elem(&rings, &i);
}

static __always_inline void *ring_of_cpu(void)
{
	return ring(bpf_get_smp_processor_id());
}

/* Which ring has the most room: where one CPU has more to tell than its ring holds, it
 * has that of the others.
 */
__noinline int emptiest_ring(void)
{
	u64 waits, least = ~0ULL;
	int emptiest = 0;
	void *r;
	u32 i;

	for (i = 0; i < MAX_RINGS && i <= last_ring; i++) {
		r = ring(i);
		if (!r)
			break;
		waits = bpf_ringbuf_query(r, BPF_RB_AVAIL_DATA);
		if (waits < least) {
			least = waits;
			emptiest = i;
		}
	}
	return emptiest;
}

/* Room for an event, or NULL. The first that is written there is the time, of
 * CLOCK_BOOTTIME, and none that is still to come: the reader puts the events of all
 * rings in order by it.
 */
static __always_inline void *room_for(u64 size)
{
	void *r = ring_of_cpu();
	void *room = r ? bpf_ringbuf_reserve(r, size, 0) : NULL;

	if (unlikely(!room && last_ring)) {
		r = ring(emptiest_ring());
		room = r ? bpf_ringbuf_reserve(r, size, 0) : NULL;
	}
	return room;
}

/* The same; if there is none, the loss is counted. */
static __always_inline void *reserve(u64 size)
{
	void *room = room_for(size);

	if (unlikely(!room))
		count(COUNTER_RING_BUFFER_FULL);
	return room;
}

/* Waking the reader costs more than an event, so it is woken only when a ring
 * begins to fill; it looks by itself several times a second. To look how much there
 * is costs too, so each CPU does it once in so many events.
 */
#define LOOK_EVERY 32

const volatile u64 wake_up_bytes = 0; /* a part of a ring, set by the runtime */

static __always_inline bool is_filling(void)
{
	void *r = ring_of_cpu();

	return r && bpf_ringbuf_query(r, BPF_RB_AVAIL_DATA) >= wake_up_bytes;
}

/* The memory of the next event, which will be as large, has long left the CPU's
 * caches: a read puts it on its way, and nobody waits for the result. (Before the event
 * is submitted it would hold that up, as atomic operations wait for all reads.)
 */
static __always_inline void fetch(u64 next, u64 size)
{
	u64 word, i;

	if (!bpf_rdonly_cast)
		return;
	for (i = 0; i < size; i += CACHE_LINE) {
		word = READ(struct timespec64, (void *)(next + i + CACHE_LINE - sizeof(u64)), tv_sec);
		barrier_var(word);
	}
}

static __always_inline void submit_sized(void *room, u64 size)
{
	u32 recorded = COUNTER_RECORDED;
	u64 *n = bpf_map_lookup_elem(&counters, &recorded);
	u64 next = address_of(room) + size;
	u64 flags = BPF_RB_NO_WAKEUP;

	if (n) {
		__sync_fetch_and_add(n, 1);
		if (unlikely(*n % LOOK_EVERY == 0) && is_filling())
			flags = BPF_RB_FORCE_WAKEUP;
	}
	bpf_ringbuf_submit(room, flags);
	fetch(next, size);
}

#define submit(event) submit_sized(event, sizeof(*(event)))
