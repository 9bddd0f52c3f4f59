/* SPDX-License-Identifier: GPL-2.0 */
/*
 * wire.h: the records that cross from the kernel to tracer/core/wire.py.
 *
 * The one source of these layouts: a test compiles this header on the host and
 * compares every size and offset with the decoder. Fields are ordered so that
 * no compiler inserts padding.
 */
#ifndef INOTRACE_WIRE_H
#define INOTRACE_WIRE_H

#include <linux/types.h>

#define COMM_LEN	16
#define FRAMES_MAX	64	/* of a stack, 8 bytes each */
#define PATH_BYTES_MAX	4096	/* PATH_MAX, the final NUL included */
#define LAST_WDS_MAX	512	/* watch descriptors one last_event can carry */

enum op {
	OP_INIT = 1,	/* inotify_init, inotify_init1 */
	OP_ADD = 2,	/* inotify_add_watch */
	OP_RM = 3,	/* inotify_rm_watch */
	OP_LAST = 4,	/* an instance as its holder ends: last_event */
};

/* what every record starts with */
struct record_head {
	__u32 op;
	__u32 tgid;
	__u64 ts;		/* CLOCK_MONOTONIC in ns, at the exit of the call */
};

/* one finished call */
struct call_event {
	struct record_head head;
	__u64 group;		/* fsnotify_group behind fd, 0: fd is no instance */
	__u64 gen;		/* when that group was made, 0: before tracing */
	__u64 birth;		/* start_boottime of the process, ns */
	__u64 caller;		/* word at the user stack pointer */
	__u32 exec_id;		/* grows with every exec of the process */
	__u32 tid;
	__u32 uid;
	__s32 fd;		/* of the instance; for OP_INIT the new one */
	__s32 ret;		/* what the call returned */
	__u32 arg;		/* flags, mask or wd */
	__s32 stack_bytes;	/* of frames in the tail, or -errno */
	__s32 path_bytes;	/* of path in the tail, NUL included, or -errno */
	char comm[COMM_LEN];	/* of the process, not of the thread */
	/* then the tail: frames, innermost first; then the path as passed */
};

/* the watches that an instance still had when a process holding it ended */
struct last_event {
	struct record_head head;
	__u64 group;
	__u64 gen;
	__u64 birth;
	__u32 count;		/* descriptors that follow */
	__u32 truncated;	/* there were more than could be read */
	__s32 wd[LAST_WDS_MAX];
};

/* one row of the holders iterator: a process's fd on an instance */
struct holder {
	__u64 group;
	__u64 gen;
	__u64 birth;
	__s64 watches_used;	/* of the instance's user, kernel's own counters */
	__s64 watches_limit;
	__s64 instances_used;
	__s64 instances_limit;
	__u32 tgid;
	__u32 fd;
	__u32 uid;		/* whom the kernel charges, in the initial namespace */
	__u32 userns;		/* inode number of that user's namespace */
	__u32 queued;		/* events nobody has read yet */
	__u32 tid;		/* whose fd table it is: a thread can have its own */
};

/* wakes the reader once for each program image that uses inotify */
struct arrival {
	__u32 tgid;
	__u32 exec_id;
};

#endif
