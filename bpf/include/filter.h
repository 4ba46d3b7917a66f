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
	char command[16];
	char interface[16];
};

/* The first are those of exclude, then come those of include. */
const volatile struct rule rules[MAX_RULES] = {};
const volatile u32 excludes = 0;
const volatile u32 includes = 0;

/* What rules look at. A condition that is not among the known meets nothing; its
 * pointer is good all the same: the verifier of Linux 5.10 loses track of which
 * is NULL.
 */
struct subject {
	const struct owner *owner;
	const struct endpoints *ends;
	const char *interface;
	u32 known; /* of enum condition */
};

#define RULES_OF_PROCESS (RULE_COMMAND | RULE_UID | RULE_CGROUP)
#define RULES_OF_SOCKET (RULE_UID | RULE_CGROUP)
#define RULES_OF_ENDS (RULE_NETWORK | RULE_PORT)

static __always_inline bool same_name(const char *a, const volatile char *b)
{
	int i;

	for (i = 0; i < 16; i++) {
		if (a[i] != b[i])
			return false;
		if (!a[i])
			return true;
	}
	return true;
}

static __always_inline bool in_network(const struct address *a, const volatile struct rule *r)
{
	u64 ip[2];

	__builtin_memcpy(ip, a, sizeof(ip));
	return (ip[0] & r->mask[0]) == r->network[0] && (ip[1] & r->mask[1]) == r->network[1];
}

static __always_inline bool in_ports(u16 port, const volatile struct rule *r)
{
	return port >= r->port_first && port <= r->port_last;
}

static __always_inline bool matches(const struct subject *s, const volatile struct rule *r)
{
	u32 on = r->conditions;

	if (on & ~s->known)
		return false;
	if (on & RULE_COMMAND && !same_name(s->owner->command, r->command))
		return false;
	if (on & RULE_UID && s->owner->uid != r->uid)
		return false;
	if (on & RULE_CGROUP && !(s->owner->cgroups & r->cgroup))
		return false;
	if (on & RULE_NETWORK && !in_network(&s->ends->local, r) && !in_network(&s->ends->remote, r))
		return false;
	if (on & RULE_PORT && !in_ports(s->ends->local_port, r) && !in_ports(s->ends->remote_port, r))
		return false;
	return !(on & RULE_INTERFACE) || same_name(s->interface, r->interface);
}

static __always_inline bool is_left_out(const struct subject *s)
{
	bool included = !includes;
	u32 i;

	for (i = 0; i < MAX_RULES; i++) {
		if (i >= excludes + includes)
			break;
		if (!matches(s, &rules[i]))
			continue;
		if (i < excludes)
			return true;
		included = true;
	}
	return !included;
}
