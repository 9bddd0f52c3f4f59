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

/* the verifier goes through all of them: at 512 for 130 ms, and now for 20 */
#define MARKS_A_VISIT	64

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
	u32 rows;		/* of the group, so far */
	u64 task;		/* whose files come by */
	u64 pass;		/* in which they do */
	struct holder holder;	/* told when all its watches are */
};

BPF_F_TABLE("array", u32, struct watch_row, watch_rows, WATCH_ROWS, BPF_F_MMAPABLE);
BPF_ARRAY(cursor, struct cursor, 1);
/* users with a process but no descriptor on an instance: theirs may be in a socket */
static __always_inline void meet_task(struct walk_control *w, struct cursor *c, u64 task)
{
	if (!OFF_CRED_UCOUNTS || (task == c->task && w->pass == c->pass))
		return;
	c->task = task;
	c->pass = w->pass;
	put_users(w, read_u64(read_u64(task + OFF_TASK_STRUCT_CRED) + OFF_CRED_UCOUNTS));
}


static __always_inline void finish_reading(struct walk_control *w, struct cursor *c, u32 reading)
{
	c->holder.reading = reading;
	c->holder.rows = c->rows;
	put_holder(w, &c->holder);
	w->end = 0;
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
	u64 inode, sb;

	if (!row || read_u64(mark + OFF_FSNOTIFY_MARK_GROUP) != c->holder.group ||
	    !(flags & MARK_IN_LIST))
		return -1;
	c->next = read_u64(mark + OFF_FSNOTIFY_MARK_G_LIST);
	inode = inode_of_mark(mark);
	if (!inode)
		return 0;
	sb = read_u64(inode + OFF_INODE_I_SB);
	if (sb != c->last_sb) {
		c->last_sb = sb;
		c->last_dev = device_of_superblock(sb);
	}
	row->inode = inode;
	row->ino = read_u64(inode + OFF_INODE_I_INO);
	row->generation = read_u32(inode + OFF_INODE_I_GENERATION);
	row->wd = read_u32(mark + OFF_INOTIFY_INODE_MARK_WD);
	row->dev = c->last_dev;
	row->mask = user_mask(read_u32(mark + OFF_FSNOTIFY_MARK_MASK), flags);
	w->watches = slot + 1;
	c->rows++;
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
	if (w->watches > WATCH_ROWS - MARKS_A_VISIT || w->holders > HOLDER_ROWS - 2 ||
	    w->users > USER_ROWS - 2 * USERNS_LEVELS)
		return 1;
	meet_task(w, c, task);
	fops = read_u64(file + OFF_FILE_F_OP);
	learn_fops(task, ctx->fd, fops);
	if (fops != inotify_fops())
		return 0;

	describe_holder(&row, task, file, ctx->fd);
	/* the descriptor was closed, and perhaps reused, between two visits */
	if (w->end && (c->holder.group != row.group || c->holder.gen != row.gen))
		finish_reading(w, c, READ_TORN);
	if (!w->end) {
		if (!is_first_meeting(w, row.group)) {
			put_holder(w, &row);
			return 0;
		}
		put_users(w, row.ucounts);
		c->holder = row;
		c->rows = 0;
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
