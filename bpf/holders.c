// SPDX-License-Identifier: GPL-2.0
/*
 * An iterator over every open file of every process (Linux 5.8+) that prints
 * one struct holder for each fd on an inotify instance.
 */

/* struct bpf_iter__task_file, kernel/bpf/task_iter.c */
struct task_file_ctx {
	u64 meta;
	u64 task;
	u64 fd;
	u64 file;
};

/* inotify_fops is not in every kernel's symbol list: take it from an instance
 * that user space opened for this */
static __always_inline void learn_fops(u32 tgid, u32 fd, u64 fops)
{
	int zero = 0;
	struct learned *known = learned.lookup(&zero);

	if (known && !known->inotify_fops && known->tgid == tgid && known->fd == fd)
		known->inotify_fops = fops;
}

/* the kernel's own counters for the user who pays for the instance */
static __always_inline void read_counters(struct holder *row)
{
	u64 ucounts = read_u64(row->group + OFF_FSNOTIFY_GROUP_INOTIFY_DATA +
			       OFF_INOTIFY_GROUP_PRIVATE_DATA_UCOUNTS);
	u64 ns = read_u64(ucounts + OFF_UCOUNTS_NS);

	row->uid = read_u32(ucounts + OFF_UCOUNTS_UID);
	row->userns = read_u32(ns + OFF_USER_NAMESPACE_NS + OFF_NS_COMMON_INUM);
	row->watches_used = read_u64(ucounts + OFF_UCOUNTS_UCOUNT + 8 * UCOUNT_INOTIFY_WATCHES);
	row->watches_limit = read_u64(ns + OFF_USER_NAMESPACE_UCOUNT_MAX +
				      8 * UCOUNT_INOTIFY_WATCHES);
	row->instances_used = read_u64(ucounts + OFF_UCOUNTS_UCOUNT +
				       8 * UCOUNT_INOTIFY_INSTANCES);
	row->instances_limit = read_u64(ns + OFF_USER_NAMESPACE_UCOUNT_MAX +
					8 * UCOUNT_INOTIFY_INSTANCES);
}

int bpf_iter__task_file(struct task_file_ctx *ctx)
{
	u64 task = ctx->task, file = ctx->file, meta = ctx->meta;
	struct holder row = {};
	u64 fops;

	if (!task || !file)
		return 0;
	row.tgid = read_u32(task + OFF_TASK_STRUCT_TGID);
	row.tid = read_u32(task + OFF_TASK_STRUCT_PID);
	row.fd = ctx->fd;
	fops = read_u64(file + OFF_FILE_F_OP);
	learn_fops(row.tgid, row.fd, fops);
	if (fops != inotify_fops())
		return 0;

	row.group = read_u64(file + OFF_FILE_PRIVATE_DATA);
	row.gen = generation_of(row.group);
	row.birth = birth_of(task);
	row.queued = read_u32(row.group + OFF_FSNOTIFY_GROUP_Q_LEN);
	read_counters(&row);
	/* an overflow makes the kernel flush and show this file again */
	bpf_seq_write((struct seq_file *)*(u64 *)meta, &row, sizeof(row));
	return 0;
}
