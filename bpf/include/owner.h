/* The process that owns an event. */
#pragma once

#include "names.h"

/* As seen from the host. */
struct owner {
	u64 cgroup_id;
	struct process process;
	u32 uid;
	u32 cgroups; /* bits of those in filter_cgroups that it is in or below */
	char command[16];
};

#define MAX_CGROUPS 32

/* A cgroup of a rule of the configuration, and how deep it is. */
struct filter_cgroup {
	u64 id;
	u64 level;
};

const volatile struct filter_cgroup filter_cgroups[MAX_CGROUPS] SEC(".rodata.rules") = {};
const volatile u32 filter_cgroups_len = 0;

struct cgroup___5_10 {
	int level;
	u64 ancestor_ids[1];
} __attribute__((preserve_access_index));

/* Bits of those in filter_cgroups that a cgroup is or is below. */
static __always_inline u32 cgroups_of(const struct cgroup *cgroup)
{
	u32 cgroups = 0;
	u64 id;
	u32 i;

	for (i = 0; i < MAX_CGROUPS; i++) {
		u32 level = filter_cgroups[i].level;

		if (i >= filter_cgroups_len || !cgroup)
			break;
		if (level > BPF_CORE_READ(cgroup, level))
			continue;
		id = 0;
		if (bpf_core_field_exists(((struct cgroup___5_10 *)0)->ancestor_ids)) {
			const struct cgroup___5_10 *old = (const void *)cgroup;

			barrier_var(old); /* its fields must not be computed where there are none */
			bpf_probe_read_kernel(&id, sizeof(id), &old->ancestor_ids[level]);
		} else {
			const struct cgroup *now = cgroup;
			struct cgroup *ancestor = NULL;

			barrier_var(now);
			bpf_probe_read_kernel(&ancestor, sizeof(ancestor), &now->ancestors[level]);
			id = BPF_CORE_READ(ancestor, kn, id);
		}
		if (id == filter_cgroups[i].id)
			cgroups |= 1U << i;
	}
	return cgroups;
}

#define LOWEST_BITS 0x0101010101010101
#define HIGHEST_BITS 0x8080808080808080

/* Bits of the bytes that are 0, the highest of each: the lowest that is set is right. */
static __always_inline u64 zero_bytes(u64 word)
{
	return (word - LOWEST_BITS) & ~word & HIGHEST_BITS;
}

/* The bytes before the first 0, which little-endian machines have lowest. */
static __always_inline u64 before_zero(u64 word)
{
	u64 zeros = zero_bytes(word);

	return word & (((zeros & -zeros) >> 7) - 1);
}

/* Without a call of a helper. What follows the 0 may be left of a longer name. */
static __always_inline void copy_command(char *command, const struct task_struct *leader)
{
	const u64 *comm = (const u64 *)leader->comm;
	u64 words[2] = { comm[0], comm[1] & ~0ULL >> 8 };

	words[1] = zero_bytes(words[0]) ? 0 : before_zero(words[1]);
	words[0] = before_zero(words[0]);
	__builtin_memcpy(command, words, sizeof(words));
}

/* Only for hooks that run in the process's own context, never in softirq. The
 * command is that of the process, as in /proc/PID/comm, not of the thread.
 */
static __always_inline void owner_is_current(struct owner *owner)
{
	struct task_struct *task, *leader;
	struct kernfs_node *node;
	struct cgroup *cgroup;
	struct process process;
	u64 task_address, node_address;

	if (has_task_btf()) {
		task = bpf_get_current_task_btf();
		leader = task->group_leader;
		cgroup = task->cgroups->dfl_cgrp;
		node = cgroup->kn;
		process.pid = task->tgid;
		process.exec_id = task->self_exec_id;
		process.start_ns = leader->start_boottime;
		owner->uid = task->cred->uid.val;
		owner->cgroup_id = node->id;
		copy_command(owner->command, leader);
		task_address = address_of(task);
		node_address = address_of(node);
	} else {
		task = (struct task_struct *)bpf_get_current_task();
		leader = BPF_CORE_READ(task, group_leader);
		cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);
		node = BPF_CORE_READ(cgroup, kn);
		process_is(&process, task);
		owner->uid = bpf_get_current_uid_gid();
		owner->cgroup_id = bpf_get_current_cgroup_id();
		bpf_probe_read_kernel_str(&owner->command, sizeof(owner->command), &leader->comm);
		task_address = (u64)task;
		node_address = (u64)node;
	}
	owner->process = process;
	owner->cgroups = cgroups_of(cgroup);
	tell_names(&process, task_address, owner->cgroup_id, node_address);
}
