// SPDX-License-Identifier: GPL-2.0
/*
 * What every probe shares. The files of this folder are joined into one text
 * before BCC compiles it, since BCC rewrites map calls in the main file only:
 * common.c first, the others as the command needs them.
 *
 * OFF_STRUCT_FIELD are byte offsets that tracer/kernel/btf.py reads from the
 * running kernel's BTF.
 */
#include "wire.h"

#ifndef FILTER_UID
#define FILTER_UID	(-1)	/* trace this effective uid only: whom inotify charges */
#endif
#ifndef FILTER_NAME
#define FILTER_NAME	{}	/* trace processes whose comm contains these bytes */
#endif
#ifndef FILTER_CGROUP
#define FILTER_CGROUP	0	/* trace processes in the cgroup of this id, or below, only */
#endif
#ifndef FILTER_CGROUP_PARENT
#define FILTER_CGROUP_PARENT	0	/* or in what is made below this one by that name */
#endif
#ifndef FILTER_HIERARCHY
#define FILTER_HIERARCHY	0	/* where that is: 0 is version 2, as in /proc/PID/cgroup */
#endif
#ifndef SCOPED
#define SCOPED		0	/* trace the processes listed in scope only */
#endif
#ifndef GENERATION_ENTRIES
#define GENERATION_ENTRIES	65536
#endif
#ifndef SCOPE_ENTRIES
#define SCOPE_ENTRIES	65536
#endif
#ifndef STACKS
#define STACKS		1	/* collect user stacks at all */
#endif
#ifndef RM_STACKS
#define RM_STACKS	0	/* collect the stack of removals too */
#endif

#define USERNS_LEVELS	33	/* create_user_ns() refuses to nest deeper */
/* version 2, and of version 1 one for each of 16 controllers at most and some by name */
#define HIERARCHIES	32
/* the kernel sets no limit; containers are some 5 deep, and as many more where they nest */
#define CGROUP_LEVELS	64
#define CGROUP_NAME_LEN	256	/* NAME_MAX and its end */

/* a field that this kernel lacks has offset 0 */
#if FILTER_CGROUP && !(OFF_TASK_STRUCT_CGROUPS && OFF_CSS_SET_DFL_CGRP && \
	OFF_CSS_SET_CGRP_LINKS && OFF_CGRP_CSET_LINK_CGRP_LINK && OFF_CGROUP_KN && \
	OFF_CGROUP_ROOT && OFF_CGROUP_ROOT_HIERARCHY_ID && OFF_CGROUP_SUBSYS_STATE_PARENT)
#error "the type information of this kernel does not tell where cgroups are"
#endif

enum counter {
	SUBMITTED,
	LOST,			/* refused by a buffer */
	UNHEALED,		/* of these: nothing is left */
	UNFOLLOWED,		/* children for which scope had no room */
	COUNTERS,
};

/* a call_event under construction; the tail is longer than frames and path can
 * be, so that any masked length stays inside it, as the verifier demands */
struct call_scratch {
	struct call_event event;
	u8 tail[8192];
	u64 busy;	/* programs at it: more than one if the first was preempted */
};

/* what only user space can tell: see tracer/kernel/probe.py */
struct learned {
	u64 inotify_fops;	/* 0 until the iterator met the instance below */
	u32 tgid;
	u32 fd;
};

/* when an instance was made, and the last watch of it that user space was told of */
struct generation {
	u64 gen;
	s64 told_wd;
};

BPF_PERF_OUTPUT(events);
BPF_PERF_OUTPUT(arrivals);
BPF_ARRAY(learned, struct learned, 1);
/* when a walk last read an instance; CLOCK_MONOTONIC in ns */
BPF_ARRAY(walked_at, u64, 1);
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);
/* nonzero once the buffers are open: before, a record could only be lost */
BPF_ARRAY(gate, u32, 1);
BPF_PERCPU_ARRAY(call_scratch, struct call_scratch, 1);
/* group -> generation. LRU: a group that was freed is forgotten in time, one
 * in use is looked up and stays. */
BPF_F_TABLE("lru_hash", u64, struct generation, generations,
	    GENERATION_ENTRIES, 0);
/* tgid -> the image that was announced through arrivals */
BPF_F_TABLE("lru_hash", u32, struct arrival, announced, 16384, 0);
BPF_F_TABLE("hash", u32, u8, scope, SCOPE_ENTRIES, 0);
#if FILTER_CGROUP_PARENT
struct cgroup_name {
	u64 words[CGROUP_NAME_LEN / 8];	/* zeroes after its end */
};
/* that of the wanted cgroup, and of one that was met */
BPF_ARRAY(wanted_cgroup, struct cgroup_name, 1);
BPF_PERCPU_ARRAY(met_cgroup, struct cgroup_name, 1);
#endif

static __always_inline u64 read_u64(u64 addr)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)addr);
	return value;
}

static __always_inline u32 read_u32(u64 addr)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)addr);
	return value;
}

static __always_inline bool is_tracing(void)
{
	int zero = 0;
	u32 *open = gate.lookup(&zero);

	return open && *open;
}

static __always_inline void count_many(u32 which, u64 number)
{
	u64 *value = counters.lookup(&which);

	if (value)
		*value += number;
}

static __always_inline void count(u32 which)
{
	count_many(which, 1);
}

static __always_inline u64 inotify_fops(void)
{
	int zero = 0;
	struct learned *known = learned.lookup(&zero);

	return known ? known->inotify_fops : 0;
}

static __always_inline u32 effective_uid(u64 task)
{
	return read_u32(read_u64(task + OFF_TASK_STRUCT_CRED) + OFF_CRED_EUID);
}

/* the name of the process; that of a thread may be another */
static __always_inline void read_comm(char *comm, u64 task)
{
	u64 leader = read_u64(task + OFF_TASK_STRUCT_GROUP_LEADER);

	bpf_probe_read_kernel(comm, COMM_LEN, (void *)(leader + OFF_TASK_STRUCT_COMM));
}

static __always_inline bool has_wanted_name(u64 task)
{
	const char wanted[] = FILTER_NAME;
	char comm[COMM_LEN] = {};
	int at, i;

	if (!sizeof(wanted))
		return true;
	read_comm(comm, task);
	for (at = 0; at + sizeof(wanted) < COMM_LEN; at++) {
		for (i = 0; i < sizeof(wanted); i++)
			if (comm[at + i] != wanted[i])
				break;
		if (i == sizeof(wanted))
			return true;
	}
	return false;
}

/* of version 1 the links of the set tell, which are freed when its last task leaves: whoever is
 * moved just now may be taken for outside, and what it then adds is found by the next walk */
static __always_inline u64 cgroup_of(u64 css_set)
{
	u64 end = css_set + OFF_CSS_SET_CGRP_LINKS, node = end, cgroup;
	int i;

	if (!FILTER_HIERARCHY)
		return read_u64(css_set + OFF_CSS_SET_DFL_CGRP);
	for (i = 0; i < HIERARCHIES; i++) {
		node = read_u64(node);
		if (!node || node == end)
			break;
		cgroup = read_u64(node - OFF_CGRP_CSET_LINK_CGRP_LINK +
				  OFF_CGRP_CSET_LINK_CGRP);
		if (read_u32(read_u64(cgroup + OFF_CGROUP_ROOT) +
			     OFF_CGROUP_ROOT_HIERARCHY_ID) == FILTER_HIERARCHY)
			return cgroup;
	}
	return 0;
}

static __always_inline bool has_wanted_cgroup_name(u64 node)
{
#if FILTER_CGROUP_PARENT
	u32 zero = 0;
	struct cgroup_name *wanted = wanted_cgroup.lookup(&zero);
	struct cgroup_name *met = met_cgroup.lookup(&zero);
	int i;

	if (!wanted || !met)
		return false;
	__builtin_memset(met, 0, sizeof(*met));
	bpf_probe_read_kernel_str(met, sizeof(*met),
				  (void *)read_u64(node + OFF_KERNFS_NODE_NAME));
	for (i = 0; i < CGROUP_NAME_LEN / 8; i++)
		if (met->words[i] != wanted->words[i])
			return false;
	return true;
#else
	return false;
#endif
}

/* The process is where its first thread is, as in /proc/PID/cgroup. A service that restarts has a
 * new cgroup of the same name in the same place. */
static __always_inline bool in_wanted_cgroup(u64 task)
{
	u64 leader = read_u64(task + OFF_TASK_STRUCT_GROUP_LEADER), node, css;
	u64 cgroup = cgroup_of(read_u64(leader + OFF_TASK_STRUCT_CGROUPS));
	u64 below = 0, id;
	int i;

	for (i = 0; i < CGROUP_LEVELS && cgroup; i++) {
		node = read_u64(cgroup + OFF_CGROUP_KN);
		id = read_u64(node + OFF_KERNFS_NODE_ID);
		if (id == FILTER_CGROUP)
			return true;
		if (FILTER_CGROUP_PARENT && id == FILTER_CGROUP_PARENT)
			return below && has_wanted_cgroup_name(below);
		below = node;
		css = read_u64(cgroup + OFF_CGROUP_SELF + OFF_CGROUP_SUBSYS_STATE_PARENT);
		cgroup = css ? read_u64(css + OFF_CGROUP_SUBSYS_STATE_CGROUP) : 0;
	}
	return false;
}

static __always_inline bool in_scope(u64 task, u32 tgid)
{
	if (SCOPED && !scope.lookup(&tgid))
		return false;
	if (FILTER_UID != -1 && effective_uid(task) != (u32)FILTER_UID)
		return false;
	if (!has_wanted_name(task))
		return false;
	return !FILTER_CGROUP || in_wanted_cgroup(task);
}

/* the fd table of the task: number of slots, bitmap of those in use, first slot */
struct fd_table {
	u64 slots;
	u64 open_fds;
	u64 files;
};

static __always_inline struct fd_table fd_table_of(u64 task)
{
	u64 fdt = read_u64(read_u64(task + OFF_TASK_STRUCT_FILES) + OFF_FILES_STRUCT_FDT);
	struct fd_table table = {
		.slots = read_u32(fdt + OFF_FDTABLE_MAX_FDS),
		.open_fds = read_u64(fdt + OFF_FDTABLE_OPEN_FDS),
		.files = read_u64(fdt + OFF_FDTABLE_FD),
	};

	return table;
}

/* the fsnotify_group behind a struct file, 0 if that is no inotify instance */
static __always_inline u64 group_of_file(u64 file, u64 fops)
{
	if (!file || read_u64(file + OFF_FILE_F_OP) != fops)
		return 0;
	return read_u64(file + OFF_FILE_PRIVATE_DATA);
}

static __always_inline u64 generation_of(u64 group)
{
	struct generation *known = generations.lookup(&group);

	return known ? known->gen : 0;
}

static __always_inline u64 birth_of(u64 task)
{
	return read_u64(read_u64(task + OFF_TASK_STRUCT_GROUP_LEADER) +
			OFF_TASK_STRUCT_START_BOOTTIME);
}

/* random with each exec, and /proc/PID/stat tells it too */
static __always_inline u64 start_of_stack(u64 task)
{
	return read_u64(read_u64(task + OFF_TASK_STRUCT_MM) + OFF_MM_STRUCT_START_STACK);
}

/* what a mark is on: 0 if its inode is going away right now */
static __always_inline u64 inode_of_mark(u64 mark)
{
	u64 object = read_u64(read_u64(mark + OFF_FSNOTIFY_MARK_CONNECTOR) +
			      OFF_FSNOTIFY_MARK_CONNECTOR_OBJ);

	return object ? object - CONNECTOR_POINTS_INTO_INODE : 0;
}

static __always_inline u32 device_of_superblock(u64 sb)
{
	return read_u32(sb + OFF_SUPER_BLOCK_S_DEV);
}

static __always_inline s64 read_number(u64 array, u32 index, u32 bytes)
{
	if (bytes == 4)
		return (s32)read_u32(array + 4 * index);
	return read_u64(array + 8 * index);
}

/* how much a user has, and may have in the namespace of that ucounts */
static __always_inline s64 used_of(u64 ucounts, u32 which)
{
	return read_number(ucounts + OFF_UCOUNTS_UCOUNT, which, COUNTER_BYTES);
}

static __always_inline s64 limit_in(u64 ns, u32 which)
{
	return read_number(ns + OFF_USER_NAMESPACE_UCOUNT_MAX, which, LIMIT_BYTES);
}

/* who is charged for an instance */
static __always_inline u64 ucounts_of(u64 group)
{
	return read_u64(group + OFF_FSNOTIFY_GROUP_INOTIFY_DATA +
			OFF_INOTIFY_GROUP_PRIVATE_DATA_UCOUNTS);
}

static __always_inline u32 userns_of(u64 ucounts)
{
	return read_u32(read_u64(ucounts + OFF_UCOUNTS_NS) + OFF_USER_NAMESPACE_NS +
			OFF_NS_COMMON_INUM);
}
