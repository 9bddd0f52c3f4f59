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
#define SPILLED_PATH	128	/* bytes of a path that a refused call can keep */
#define LAST_WDS_MAX	512	/* watch descriptors one last_event can carry */
#define TRACE_MAX	16	/* kernel frames that tell why a watch went */
#define WATCH_ROWS	65536	/* room for rows of a walk until user space takes them */
#define HOLDER_ROWS	8192
#define USER_ROWS	4096
#define NAME_ROWS	128	/* dentries that one run tells of */
#define NAME_BYTES_MAX	256	/* NAME_MAX and the final NUL */

enum op {
	OP_INIT = 1,	/* inotify_init, inotify_init1 */
	OP_ADD = 2,	/* inotify_add_watch */
	OP_RM = 3,	/* inotify_rm_watch */
	OP_LAST = 4,	/* an instance as its holder ends: last_event */
	OP_GONE = 5,	/* a watch went by itself: gone_event */
	OP_CLOSED = 6,	/* an instance went, and its watches: closed_event */
	OP_COPY = 7,	/* what a call's stack looked like: stack_copy */
};

/* what every record starts with */
struct record_head {
	__u32 op;
	__u32 tgid;
	__u64 ts;		/* CLOCK_MONOTONIC in ns; of a call, at its exit */
};

/* what inotify_init had none left of */
enum exhausted {
	EXHAUSTED_UNKNOWN = 0,
	EXHAUSTED_INSTANCES = 1,	/* of the user, or of who made its namespace */
	EXHAUSTED_DESCRIPTORS = 2,	/* of the process */
};

/* why a walk over the frames of a stack went no further */
enum walk_end {
	WALK_OUTERMOST = 0,	/* there are no more */
	WALK_NO_ROW = 1,	/* user space has to say how to leave the last frame */
	WALK_UNREADABLE = 2,	/* what should be on the stack is not in memory */
	WALK_BACKWARD = 3,	/* the caller's frame would lie below the callee's */
	WALK_TOO_DEEP = 4,	/* more than FRAMES_MAX */
	WALK_COMPAT = 5,	/* a 32-bit program: only where it called is known */
	WALK_KEPT = 6,		/* as WALK_NO_ROW, but the copy did not fit its buffer: kept_copy */
	WALK_UNKNOWN = 7,	/* nothing tells how to leave the last frame */
};

/* what a value in struct unwind_row is measured from */
enum unwind_from {
	FROM_NOTHING = 0,	/* cfa: there is no caller; fp: the register has kept its value */
	FROM_SP = 1,
	FROM_FP = 2,
	FROM_CFA = 3,
	FROM_LINK = 4,		/* the return address is in the link register */
	FROM_REGISTERS = 5,	/* cfa: takes more than this struct can say */
	FROM_UNKNOWN = 6,	/* cfa: user space does not know either */
};

enum unwind_flags {
	UNWIND_CFA_IN_MEMORY = 1,	/* the CFA is the word there */
	UNWIND_SIGNAL = 2,		/* the caller was interrupted, it did not call */
	UNWIND_GUESSED = 4,
	UNWIND_OTHER_STACK = 8,		/* the caller's frame may lie anywhere */
};

/*
 * How to leave the frame at a pc: the canonical frame address (CFA) is the
 * caller's stack pointer, and the other two lie where this says.
 */
struct unwind_row {
	__s32 cfa_offset;
	__s32 ra_offset;	/* of the return address */
	__s32 fp_offset;	/* of the caller's frame pointer */
	__u8 cfa_from;		/* enum unwind_from, three times */
	__u8 ra_from;
	__u8 fp_from;
	__u8 flags;		/* enum unwind_flags */
};

/* the highest bit of a pc at which code was interrupted: the instruction there, not the
 * call before it, says which row applies */
#define EXACT_PC	(1ULL << 63)

/* one pc of one program image in one process */
struct unwind_key {
	__u64 pc;
	__u64 birth;
	__u32 tgid;
	__u32 exec_id;
};

#define COPY_PAGES	15	/* a record of so many is just below what perf can carry */
#define REGISTERS	33	/* of aarch64, the larger of both */

/* what user space needs to find the missing rows; comes before the call_event of the same
 * thread and time */
struct stack_copy {
	struct record_head head;
	__u64 birth;
	__u32 exec_id;
	__u32 tid;
	__u64 pc;		/* of the frame that has no row */
	__u64 sp;
	__u64 fp;
	__u64 base;		/* the address that the copy begins with */
	__u64 stack;		/* as in struct arrival */
	__u32 frames;		/* walked before that one */
	__u32 bytes;		/* of the copy, which follows */
	__u32 present;		/* its pages that could be read, a bit each; the first is partial */
	__u32 unused;
	__u64 registers[REGISTERS];	/* of the call, numbered as in DWARF */
};

/* of which call a copy is, that was refused */
struct kept_key {
	__u64 ts;
	__u32 tid;
	__u32 unused;
};

#define KEPT_BYTES	8192

struct kept_copy {
	struct stack_copy copy;	/* may tell of more bytes than fit */
	__u8 content[KEPT_BYTES];
};

/* one finished call: first what differs from call to call, then who called from
 * where, which a flood repeats and user space looks up as a whole */
struct call_event {
	struct record_head head;
	__s32 ret;		/* what the call returned */
	__u32 arg;		/* flags, mask or wd */
	__s32 stack_bytes;	/* of frames in the tail */
	__s32 path_bytes;	/* of path in the tail, NUL included, or -errno */
	/* of OP_ADD: what a new watch is on, zeros: not known; of OP_INIT: who is charged; of a
	 * limit that was met: whose */
	__u64 inode;		/* its address; or used << 32 | limit */
	__u64 ino;		/* or inode number of the user namespace, 0: not known */
	__u32 dev;		/* kernel dev_t: major << 20 | minor; or uid */
	__u32 detail;		/* i_generation; or enum exhausted, after EMFILE */
	__u64 group;		/* fsnotify_group behind fd, 0: fd is no instance */
	__u64 gen;		/* when that group was made, 0: before tracing */
	__u64 birth;		/* start_boottime of the process, ns */
	__u32 walk_end;		/* enum walk_end */
	__u32 guessed;		/* a row on the way was */
	__u32 exec_id;		/* grows with every exec of the process */
	__u32 tid;
	__u32 uid;
	__s32 fd;		/* of the instance; for OP_INIT the new one */
	char comm[COMM_LEN];	/* of the process, not of the thread */
	/* then the tail: frames, innermost first; then the path as passed */
};

/* what a refused call was about: enum op; wd 0 for OP_INIT */
struct spill_key {
	__u64 group;
	__u64 gen;
	__s32 wd;
	__u32 op;
};

/* a call that the buffer refused, or so many like it */
struct spilled {
	struct call_event event;
	__u64 stack;			/* key of the spilled_stack, 0: none */
	__u64 times;
	char path[SPILLED_PATH];	/* as much as fits */
};

/* refused calls that left nothing but their number */
enum tally {
	TALLY_PAIR = 1,		/* an add and the removal of that watch */
	TALLY_UPDATE = 2,	/* an add of a watch whose add was refused as well */
	TALLY_FAILURE = 3,
};

/* what such calls have in common */
struct tally_key {
	__u64 birth;
	__u64 stack;
	__u32 tgid;
	__u32 tally;		/* enum tally */
	__s32 ret;		/* of failures */
	__u32 op;		/* of failures: enum op */
};

struct spilled_stack {
	__u64 frames[FRAMES_MAX];
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

/* a watch that goes in another way than by a traced call */
struct gone_event {
	struct record_head head;	/* tgid is of whoever caused it */
	__u64 group;
	__u64 gen;
	__s32 wd;
	__s32 trace_bytes;	/* of frames that follow, or -errno */
	__u64 trace[TRACE_MAX];	/* the kernel's return addresses, innermost first */
};

/* the last descriptor of an instance was closed */
struct closed_event {
	struct record_head head;	/* tgid is of who closed it */
	__u64 group;
	__u64 gen;
};

/* one watch, as the walk over the kernel's own list finds it; the holder that
 * comes after it says whose it is */
struct watch_row {
	__u64 inode;		/* its address, 0: not known */
	__u64 ino;
	__s32 wd;
	__u32 dev;		/* kernel dev_t: major << 20 | minor */
	__u32 mask;
	__u32 generation;	/* i_generation */
};

/* what became of an inode */
enum inode_state {
	INODE_UNKNOWN = 0,	/* its memory is in use for something else */
	INODE_LINKED = 1,	/* it has a name somewhere, or had when it left memory */
	INODE_DELETED = 2,
};

/* a name of an inode, as far as the kernel has it in memory: asked for by the inode or, if it
 * is given, by the dentry */
struct name_row {
	__u64 inode;		/* its address */
	__u64 ino;
	__u64 dentry;
	__u64 parent;		/* dentry above; itself at the filesystem's root; 0: not known */
	__u32 generation;	/* i_generation */
	__u32 bytes;		/* of the name */
	char name[NAME_BYTES_MAX];
};

/* who is charged for instances and their watches, by the kernel's own counters */
struct user_row {
	__u64 ucounts;
	__u64 parent;		/* ucounts of who made the namespace: charged as well */
	__s64 watches_used;
	__s64 watches_limit;
	__s64 instances_used;
	__s64 instances_limit;
	__u32 uid;		/* in the initial namespace */
	__u32 userns;		/* inode number of the user namespace */
};

/* what became of the watches of an instance in the walk */
enum reading {
	READ_ELSEWHERE = 0,	/* through another fd on the same instance */
	READ_WHOLE = 1,
	READ_TORN = 2,		/* the list changed under the walk */
};

/* a process's fd on an instance; its watch_rows come before it */
struct holder {
	__u64 group;
	__u64 gen;
	__u64 birth;
	__u64 ucounts;		/* who is charged for the instance: a user_row */
	__u32 tgid;
	__u32 fd;
	__u32 queued;		/* events nobody has read yet */
	__u32 tid;		/* whose fd table it is: a thread can have its own */
	__u64 read_at;		/* CLOCK_MONOTONIC in ns, before its watches were read */
	__u64 oldest;		/* of the events that nobody has read yet, by its address */
	__u32 reading;		/* enum reading */
	__u32 rows;		/* watch_rows that are its */
	__u32 queue_limit;	/* the instance keeps the one that it was made with */
	__u32 unused;
};

/* the walk as user space steers it: pass and end set before, counts reset when
 * the rows were taken; the rest is for a walk without the iterator, see ask.c */
struct walk_control {
	__u64 pass;		/* tells one walk from the next */
	__u64 end;		/* list head of the group being read, 0: none */
	__u32 watches;		/* rows that are filled */
	__u32 holders;
	__u32 users;
	__u32 asker;		/* tgid of inotrace, 0: it asks nothing */
	__u32 folder;		/* its descriptor of the /proc/PID it asks about */
	__u32 fd;		/* of that process, where to look on from */
};

/* wakes the reader once for each program image that uses inotify, and, all zeros, for a copy */
struct arrival {
	__u64 birth;
	__u64 stack;		/* where its stack begins: tells the image from that of an exec */
	__u32 tgid;
	__u32 exec_id;
};

#endif
