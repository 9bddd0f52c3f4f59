// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's own list: an iterator over every open file of every process
 * (Linux 5.8+) that finds the fds on inotify instances and what those watch.
 *
 * Rows go to arrays that user space maps, since the output of an iterator is
 * capped at 32 KiB for one file. The verifier bounds the watches of one visit;
 * returning 1 makes the kernel visit the same file again, and gives user space
 * the occasion to empty the arrays.
 */

#define MARKS_A_VISIT	512

/* include/linux/fsnotify_backend.h: ALIVE before Linux 6.0, ATTACHED since; a
 * mark that has neither has left its group's list */
#define MARK_IN_LIST	0x2
/* these moved from the mask to the flags in Linux 6.0 */
#define MARK_EXCL_UNLINK	0x10
#define MARK_IN_ONESHOT		0x20

/* include/uapi/linux/inotify.h; the other bits of a mark's mask are the kernel's */
#define IN_ALL_EVENTS	0x00000fff
#define IN_EXCL_UNLINK	0x04000000
#define IN_ONESHOT	0x80000000

/* struct bpf_iter__task_file, kernel/bpf/task_iter.c */
struct task_file_ctx {
	u64 meta;
	u64 task;
	u64 fd;
	u64 file;
};

/* where the walk stands within a group */
struct cursor {
	u64 next;		/* list node to look at */
	u64 last_sb;		/* most watches of a group share a superblock */
	u32 last_dev;
	u32 unused;
	struct holder holder;	/* told when all its watches are */
};

BPF_F_TABLE("array", u32, struct walk_control, walk_control, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct watch_row, watch_rows, WATCH_ROWS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct holder, holder_rows, HOLDER_ROWS, BPF_F_MMAPABLE);
BPF_ARRAY(cursor, struct cursor, 1);
BPF_F_TABLE("lru_hash", u64, u64, groups_met, 65536, 0);

/* inotify_fops is not in every kernel's symbol list: take it from an instance
 * that user space opened for this */
static __always_inline void learn_fops(u64 task, u32 fd, u64 fops)
{
	int zero = 0;
	struct learned *known = learned.lookup(&zero);

	/* every open file of the machine comes by here: known is the common case */
	if (!known || known->inotify_fops || known->fd != fd)
		return;
	if (known->tgid == read_u32(task + OFF_TASK_STRUCT_TGID))
		known->inotify_fops = fops;
}

static __always_inline s64 read_number(u64 array, u32 index, u32 bytes)
{
	if (bytes == 4)
		return (s32)read_u32(array + 4 * index);
	return read_u64(array + 8 * index);
}

/* the kernel's own counters for the user who pays for the instance */
static __always_inline void read_counters(struct holder *row)
{
	u64 ucounts = read_u64(row->group + OFF_FSNOTIFY_GROUP_INOTIFY_DATA +
			       OFF_INOTIFY_GROUP_PRIVATE_DATA_UCOUNTS);
	u64 ns = read_u64(ucounts + OFF_UCOUNTS_NS);
	u64 used, limit;

	row->uid = read_u32(ucounts + OFF_UCOUNTS_UID);
	row->userns = read_u32(ns + OFF_USER_NAMESPACE_NS + OFF_NS_COMMON_INUM);
	used = ucounts + OFF_UCOUNTS_UCOUNT;
	limit = ns + OFF_USER_NAMESPACE_UCOUNT_MAX;
	row->watches_used = read_number(used, UCOUNT_INOTIFY_WATCHES, COUNTER_BYTES);
	row->watches_limit = read_number(limit, UCOUNT_INOTIFY_WATCHES, LIMIT_BYTES);
	row->instances_used = read_number(used, UCOUNT_INOTIFY_INSTANCES, COUNTER_BYTES);
	row->instances_limit = read_number(limit, UCOUNT_INOTIFY_INSTANCES, LIMIT_BYTES);
}

static __always_inline void describe_holder(struct holder *row, u64 task, u64 file, u32 fd)
{
	row->group = read_u64(file + OFF_FILE_PRIVATE_DATA);
	row->gen = generation_of(row->group);
	row->birth = birth_of(task);
	row->tgid = read_u32(task + OFF_TASK_STRUCT_TGID);
	row->tid = read_u32(task + OFF_TASK_STRUCT_PID);
	row->fd = fd;
	row->queued = read_u32(row->group + OFF_FSNOTIFY_GROUP_Q_LEN);
	row->read_at = bpf_ktime_get_ns();
	row->reading = READ_ELSEWHERE;
	read_counters(row);
}

static __always_inline void put_holder(struct walk_control *w, struct holder *row)
{
	u32 slot = w->holders;
	struct holder *out = holder_rows.lookup(&slot);

	if (!out)
		return;
	*out = *row;
	w->holders = slot + 1;
}

static __always_inline void finish_reading(struct walk_control *w, struct cursor *c, u32 reading)
{
	c->holder.reading = reading;
	put_holder(w, &c->holder);
	w->end = 0;
}

static __always_inline bool is_first_meeting(struct walk_control *w, u64 group)
{
	u64 *pass = groups_met.lookup(&group);

	if (pass && *pass == w->pass)
		return false;
	groups_met.update(&group, &w->pass);
	return true;
}

static __always_inline u32 user_mask(u32 mask, u32 flags)
{
	mask &= IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT;
	if (flags & MARK_EXCL_UNLINK)
		mask |= IN_EXCL_UNLINK;
	if (flags & MARK_IN_ONESHOT)
		mask |= IN_ONESHOT;
	return mask;
}

/* 0, or nonzero if the mark is no longer in the list that led to it */
static __always_inline int put_watch(struct walk_control *w, struct cursor *c, u64 mark)
{
	u32 slot = w->watches;
	struct watch_row *row = watch_rows.lookup(&slot);
	u32 flags = read_u32(mark + OFF_FSNOTIFY_MARK_FLAGS);
	u64 object, inode, sb;

	if (!row || read_u64(mark + OFF_FSNOTIFY_MARK_GROUP) != c->holder.group ||
	    !(flags & MARK_IN_LIST))
		return -1;
	c->next = read_u64(mark + OFF_FSNOTIFY_MARK_G_LIST);
	object = read_u64(read_u64(mark + OFF_FSNOTIFY_MARK_CONNECTOR) +
			  OFF_FSNOTIFY_MARK_CONNECTOR_OBJ);
	if (!object)
		return 0;	/* its inode is going away right now */
	inode = object - CONNECTOR_POINTS_INTO_INODE;
	sb = read_u64(inode + OFF_INODE_I_SB);
	if (sb != c->last_sb) {
		c->last_sb = sb;
		c->last_dev = read_u32(sb + OFF_SUPER_BLOCK_S_DEV);
	}
	row->group = c->holder.group;
	row->ino = read_u64(inode + OFF_INODE_I_INO);
	row->wd = read_u32(mark + OFF_INOTIFY_INODE_MARK_WD);
	row->dev = c->last_dev;
	row->mask = user_mask(read_u32(mark + OFF_FSNOTIFY_MARK_MASK), flags);
	w->watches = slot + 1;
	return 0;
}

int bpf_iter__task_file(struct task_file_ctx *ctx)
{
	u64 task = ctx->task, file = ctx->file, fops;
	struct holder row = {};
	int zero = 0, i;
	struct walk_control *w = walk_control.lookup(&zero);
	struct cursor *c = cursor.lookup(&zero);

	if (!task || !file || !w || !c)
		return 0;
	fops = read_u64(file + OFF_FILE_F_OP);
	learn_fops(task, ctx->fd, fops);
	if (fops != inotify_fops())
		return 0;
	if (w->watches > WATCH_ROWS - MARKS_A_VISIT || w->holders > HOLDER_ROWS - 2)
		return 1;

	describe_holder(&row, task, file, ctx->fd);
	/* the descriptor was closed, and perhaps reused, between two visits */
	if (w->end && (c->holder.group != row.group || c->holder.gen != row.gen))
		finish_reading(w, c, READ_TORN);
	if (!w->end) {
		if (!is_first_meeting(w, row.group)) {
			put_holder(w, &row);
			return 0;
		}
		c->holder = row;
		w->end = row.group + OFF_FSNOTIFY_GROUP_MARKS_LIST;
		c->next = read_u64(w->end);
		c->last_sb = 0;
	}
	for (i = 0; i < MARKS_A_VISIT; i++) {
		if (c->next == w->end) {
			finish_reading(w, c, READ_WHOLE);
			return 0;
		}
		if (put_watch(w, c, c->next - OFF_FSNOTIFY_MARK_G_LIST)) {
			finish_reading(w, c, READ_TORN);
			return 0;
		}
	}
	return 1;
}
