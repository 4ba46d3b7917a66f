/* What the configuration leaves out: programs.NAME.exclude and include. The Go
 * side is internal/bpf/filter.go.
 */
#pragma once

#include "owner.h"
#include "socket.h"

#define MAX_RULES 64

enum condition {
	RULE_COMMAND = 1 << 0,
	RULE_UID = 1 << 1,
	RULE_CGROUP = 1 << 2,
	RULE_NETWORK = 1 << 3,
	RULE_PORT = 1 << 4,
	RULE_INTERFACE = 1 << 5,
};

/* All conditions of a rule must hold. Those on addresses and ports hold if they
 * do for either end.
 */
struct rule {
	u64 network[2];
	u64 mask[2];
	u32 conditions;
	u32 uid;
	u32 cgroup; /* bit of struct owner.cgroups */
	u16 port_first;
	u16 port_last;
	u64 command[2]; /* bytes of the name, filled up with zeros */
	u64 interface[2];
};

/* The first are those of exclude, then come those of include. (In a section of their
 * own, so that constants that are always read lie close together: a memory page that is
 * not in the CPU's tables costs as much as a call.)
 */
const volatile struct rule rules[MAX_RULES] SEC(".rodata.rules") = {};
const volatile u32 excludes = 0;
const volatile u32 includes = 0;

/* What rules look at. A condition that is not among the known meets nothing. */
struct subject {
	const struct owner *owner;
	const struct endpoints *ends;
	const char *interface;
	u32 known; /* of enum condition */
};

/* A copy of that, without what no rule asks. */
struct compared {
	struct endpoints ends;
	u32 known;
	u64 interface[2];
	u32 uid;
	u32 cgroups;
	u64 command[2];
};

_Static_assert(offsetof(struct owner, command) - offsetof(struct owner, uid) == offsetof(struct compared, command) - offsetof(struct compared, uid),
	       "uid, cgroups and command are copied at once");

#define RULES_OF_PROCESS (RULE_COMMAND | RULE_UID | RULE_CGROUP)
#define RULES_OF_SOCKET (RULE_UID | RULE_CGROUP)
#define RULES_OF_ENDS (RULE_NETWORK | RULE_PORT)

/* What follows has no branches, and one for each rule: with more of them the
 * verifier takes long.
 */

/* 1 if any bit is set, else 0. The compiler must not see that it is a comparison. */
static __always_inline u64 any(u64 bits)
{
	barrier_var(bits);
	bits |= -bits;
	barrier_var(bits);
	return bits >> 63;
}

/* 0 if the names are the same. */
static __always_inline u64 other_name(const u64 *name, const volatile u64 *wanted)
{
	return any((name[0] ^ wanted[0]) | (name[1] ^ wanted[1]));
}

static __always_inline u64 other_network(const struct address *a, const volatile struct rule *r)
{
	u64 ip[2];

	__builtin_memcpy(ip, a, sizeof(ip));
	return any(((ip[0] & r->mask[0]) ^ r->network[0]) | ((ip[1] & r->mask[1]) ^ r->network[1]));
}

static __always_inline u64 other_port(u64 port, const volatile struct rule *r)
{
	u64 below = port - r->port_first, above = r->port_last - port;

	barrier_var(below);
	barrier_var(above);
	return (below | above) >> 63;
}

static __always_inline bool matches(const struct compared *f, const volatile struct rule *r)
{
	u64 on = r->conditions;
	u64 wrong = on & ~f->known;

	wrong |= (on / RULE_COMMAND & 1) & other_name(f->command, r->command);
	wrong |= (on / RULE_UID & 1) & any(f->uid ^ r->uid);
	wrong |= (on / RULE_CGROUP & 1) & ~any(f->cgroups & r->cgroup);
	wrong |= (on / RULE_NETWORK & 1) & other_network(&f->ends.local, r) & other_network(&f->ends.remote, r);
	wrong |= (on / RULE_PORT & 1) & other_port(f->ends.local_port, r) & other_port(f->ends.remote_port, r);
	wrong |= (on / RULE_INTERFACE & 1) & other_name(f->interface, r->interface);
	return !wrong;
}

/* 1 if the rules leave it out. The arguments are addresses, see address_of, and the
 * known of a struct subject.
 */
__noinline int rules_leave_out(u64 owner, u64 ends, u64 interface, u32 known)
{
	bool included = !includes;
	struct compared f;
	u32 i;

	bpf_probe_read_kernel(&f.ends, sizeof(f.ends), (void *)ends);
	bpf_probe_read_kernel(&f.interface, sizeof(f.interface), (void *)interface);
	bpf_probe_read_kernel(&f.uid, sizeof(f) - offsetof(struct compared, uid), (void *)(owner + offsetof(struct owner, uid)));
	f.known = known;
	for (i = 0; i < MAX_RULES; i++) {
		if (i >= excludes + includes)
			break;
		if (!matches(&f, &rules[i]))
			continue;
		if (i < excludes)
			return 1;
		included = true;
	}
	return !included;
}

static __always_inline bool is_left_out(const struct subject *s)
{
	return excludes + includes &&
	       rules_leave_out(address_of(s->owner), address_of(s->ends), address_of(s->interface), s->known);
}
