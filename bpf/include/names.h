/* Names that take long to read: the executable and the parent of a process, the
 * path of a cgroup. They are told once, before the first event of that process
 * or cgroup, in a ring buffer of their own, so that they are there when the event
 * is read, also if the process is gone by then. All monitors share these maps
 * (internal/bpf/names.go).
 */
#pragma once

#include "monitor.h"

#define NAME_BYTES 256 /* NAME_MAX of the kernel, and the 0 */
#define PATH_BYTES 512 /* a path is told if its first name begins before this */
#define MAX_STEPS 64   /* names and mounts on the way to the root */

/* What never belongs to two processes, nor to two programs that one process
 * executes one after the other.
 */
struct process {
	u64 start_ns; /* CLOCK_BOOTTIME */
	u32 pid;
	u32 exec_id; /* grows with each execve() */
};

enum path_end {
	PATH_UNKNOWN, /* too long, or it could not be read */
	PATH_ROOT,    /* whole, from the root */
	PATH_NOWHERE, /* whole, of a file that is in no folder: a memfd */
};

/* The names of a process, or of a cgroup: then process is 0. */
struct named {
	struct process process;
	u64 cgroup_id;
	u32 parent_pid;
	char parent_command[16];
	u16 path_length;
	u8 path_end;
	char path[PATH_BYTES + NAME_BYTES]; /* innermost name first, a 0 after each */
};

const struct named *unused_named __attribute__((unused));

/* Room for 1,300 processes and cgroups between two looks of the reader. If it is
 * full, their next events try again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1024 * 1024);
} names SEC(".maps");

/* Who was told of. What falls out is told again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct process);
	__type(value, u64); /* the cgroup that was told of with it */
} told_processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, u8);
} told_cgroups SEC(".maps");

#ifndef MAPS_ALONE

/* The process that was last found to be told of, on each CPU: mostly it is the next
 * one, too.
 */
struct last_told {
	struct process process;
	u64 cgroup_id;
	u64 tellings;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct last_told);
} last_told SEC(".maps");

/* How many processes were told of. When there is another one, it may have taken the
 * place of any.
 */
volatile u64 tellings = 0;

static __always_inline bool add_name(struct named *n, const char *name)
{
	u32 at = n->path_length;
	long length;

	if (at >= PATH_BYTES)
		return false;
	length = bpf_probe_read_kernel_str(&n->path[at], NAME_BYTES, name);
	if (length <= 0)
		return false;
	n->path_length = at + length;
	return true;
}

/* The file that is executed, from the root of its mount namespace: what
 * /proc/PID/exe shows.
 */
static __always_inline u8 read_executable(struct named *n, struct task_struct *task)
{
	struct file *file = BPF_CORE_READ(task, mm, exe_file);
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry), *folder;
	struct mount *mount = container_of(BPF_CORE_READ(file, f_path.mnt), struct mount, mnt), *below;
	int i;

	if (!file) /* a thread of the kernel */
		return PATH_UNKNOWN;
	for (i = 0; i < MAX_STEPS; i++) {
		if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
			below = BPF_CORE_READ(mount, mnt_parent);
			if (below == mount)
				return PATH_ROOT;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = below;
			continue;
		}
		folder = BPF_CORE_READ(dentry, d_parent);
		if (!add_name(n, (const char *)BPF_CORE_READ(dentry, d_name.name)))
			return PATH_UNKNOWN;
		if (folder == dentry)
			return PATH_NOWHERE;
		dentry = folder;
	}
	return PATH_UNKNOWN;
}

/* Up to Linux 6.14. */
struct kernfs_node___named_parent {
	struct kernfs_node *parent;
} __attribute__((preserve_access_index));

static __always_inline u8 read_cgroup_path(struct named *n, struct kernfs_node *node)
{
	struct kernfs_node *parent;
	int i;

	for (i = 0; i < MAX_STEPS; i++) {
		if (bpf_core_field_exists(node->__parent))
			parent = BPF_CORE_READ(node, __parent);
		else
			parent = BPF_CORE_READ((struct kernfs_node___named_parent *)node, parent);
		if (!parent)
			return PATH_ROOT;
		if (!add_name(n, BPF_CORE_READ(node, name)))
			return PATH_UNKNOWN;
		node = parent;
	}
	return PATH_UNKNOWN;
}

static __always_inline struct named *reserve_names(void)
{
	struct named *n = bpf_ringbuf_reserve(&names, sizeof(*n), 0);

	if (!n)
		count(COUNTER_NAMES_FULL);
	else
		__builtin_memset(n, 0, offsetof(struct named, path));
	return n;
}

static __always_inline void process_is(struct process *process, struct task_struct *task)
{
	process->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	process->pid = BPF_CORE_READ(task, tgid);
	process->exec_id = BPF_CORE_READ(task, self_exec_id);
}

static __always_inline bool tell_process(struct process *process, struct task_struct *task)
{
	struct named *n = reserve_names();
	struct task_struct *parent;

	if (!n)
		return false;
	n->process = *process;
	n->path_end = read_executable(n, task);
	parent = BPF_CORE_READ(task, group_leader, real_parent);
	n->parent_pid = BPF_CORE_READ(parent, tgid);
	BPF_CORE_READ_STR_INTO(&n->parent_command, parent, group_leader, comm);
	bpf_ringbuf_submit(n, BPF_RB_NO_WAKEUP);
	return true;
}

/* False: there was no room. */
static __always_inline bool tell_new_cgroup(struct kernfs_node *node)
{
	u64 id = BPF_CORE_READ(node, id);
	struct named *n;
	u8 told = 1;

	if (!id || bpf_map_lookup_elem(&told_cgroups, &id))
		return true;
	n = reserve_names();
	if (!n)
		return false;
	n->cgroup_id = id;
	n->path_end = read_cgroup_path(n, node);
	/* At once: the files that name a container may be gone soon. */
	bpf_ringbuf_submit(n, BPF_RB_FORCE_WAKEUP);
	bpf_map_update_elem(&told_cgroups, &id, &told, BPF_ANY);
	return true;
}

/* In any context; the argument is an address, see address_of. */
__noinline int tell_cgroup(u64 node)
{
	return tell_new_cgroup((struct kernfs_node *)node);
}

/* The task is one of the process to tell of, node is that of its cgroup: addresses,
 * see address_of.
 */
__noinline int tell_new_names(u64 task, u64 node)
{
	struct process process = {};
	u64 cgroup_id = BPF_CORE_READ((struct kernfs_node *)node, id);

	process_is(&process, (struct task_struct *)task);
	if (!bpf_map_lookup_elem(&told_processes, &process) && !tell_process(&process, (struct task_struct *)task))
		return 0;
	__sync_fetch_and_add(&tellings, 1);
	if (tell_new_cgroup((struct kernfs_node *)node))
		bpf_map_update_elem(&told_processes, &process, &cgroup_id, BPF_ANY);
	return 0;
}

/* Nearly always both were told of before: one lookup says so. task and node are
 * addresses.
 */
static __always_inline void tell_names(const struct process *process, u64 task, u64 cgroup_id, u64 node)
{
	u32 first = 0;
	struct last_told *last = bpf_map_lookup_elem(&last_told, &first);
	u64 *told;

	if (last && last->process.start_ns == process->start_ns && last->process.pid == process->pid &&
	    last->process.exec_id == process->exec_id && last->cgroup_id == cgroup_id && last->tellings == tellings)
		return;
	told = bpf_map_lookup_elem(&told_processes, process);
	if (unlikely(!told || *told != cgroup_id)) {
		tell_new_names(task, node);
	} else if (last) {
		last->tellings = tellings;
		last->process = *process;
		last->cgroup_id = cgroup_id;
	}
}

#endif /* MAPS_ALONE */
