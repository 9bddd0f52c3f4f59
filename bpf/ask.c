// SPDX-License-Identifier: GPL-2.0
/*
 * The holders of instances where the iterator of walk.c does not load.
 *
 * inotrace opens the folder /proc/PID of a task, says so in walk_control, and
 * makes an inotify_rm_watch that fails. At its exit we are in the context of
 * inotrace: its descriptor leads to the task, and that to the table of files.
 * Nothing is duplicated, so no instance lives longer for it, and no permission
 * is asked for. The watches user space then reads from fdinfo.
 */

#define SLOTS_A_QUESTION	512
#define NO_MORE_FDS		0xffffffff

static __always_inline bool is_asker(u32 tgid)
{
	int zero = 0;
	struct walk_control *w = walk_control.lookup(&zero);

	return w && w->asker == tgid;
}

/* PROC_I(inode)->pid, fs/proc/internal.h; PIDTYPE_PID is the first of its lists */
static __always_inline u64 task_of_folder(u32 fd)
{
	struct fd_table table = fd_table_of(bpf_get_current_task());
	u64 inode, pid, link;

	if (fd >= table.slots)
		return 0;
	inode = read_u64(read_u64(table.files + 8 * (u64)fd) + OFF_FILE_F_INODE);
	pid = read_u64(inode - OFF_PROC_INODE_VFS_INODE + OFF_PROC_INODE_PID);
	link = read_u64(pid + OFF_PID_TASKS);
	return link ? link - OFF_TASK_STRUCT_PID_LINKS : 0;
}

/* tells the next holder from w->fd on, which then is its descriptor; it stays
 * below NO_MORE_FDS without a holder if the table is too large for one question */
static __always_inline int answer(void)
{
	int zero = 0, i;
	struct walk_control *w = walk_control.lookup(&zero);
	u64 task, file, in_use, fops = inotify_fops();
	struct fd_table table;
	struct holder row = {};

	if (!w)
		return 0;
	task = task_of_folder(w->folder);
	table = fd_table_of(task);
	if (OFF_CRED_UCOUNTS)
		put_users(w, read_u64(read_u64(task + OFF_TASK_STRUCT_CRED) + OFF_CRED_UCOUNTS));
	for (i = 0; i < SLOTS_A_QUESTION; i++) {
		if (!task || w->fd >= table.slots) {
			w->fd = NO_MORE_FDS;
			return 0;
		}
		in_use = read_u64(table.open_fds + w->fd / 64 * 8) >> (w->fd & 63);
		if (!in_use) {
			w->fd = (w->fd | 63) + 1;
			continue;
		}
		file = in_use & 1 ? read_u64(table.files + 8 * (u64)w->fd) : 0;
		if (file && !fops) {
			learn_fops(task, w->fd, read_u64(file + OFF_FILE_F_OP));
			fops = inotify_fops();
		}
		if (group_of_file(file, fops)) {
			describe_holder(&row, task, file, w->fd);
			if (is_first_meeting(w, row.group)) {
				put_users(w, row.ucounts);
				row.reading = READ_WHOLE;
			}
			put_holder(w, &row);
			return 0;
		}
		w->fd++;
	}
	return 0;
}
