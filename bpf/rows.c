// SPDX-License-Identifier: GPL-2.0
/*
 * What a walk tells of instances, who holds them and who is charged, by
 * whichever way it goes: the iterator of walk.c, or the questions of ask.c.
 */

BPF_F_TABLE("array", u32, struct walk_control, walk_control, 1, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct holder, holder_rows, HOLDER_ROWS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct user_row, user_rows, USER_ROWS, BPF_F_MMAPABLE);
/* group or ucounts -> the pass that met it last */
BPF_F_TABLE("lru_hash", u64, u64, met, 65536, 0);

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

static __always_inline bool is_first_meeting(struct walk_control *w, u64 object)
{
	u64 *pass = met.lookup(&object);

	if (pass && *pass == w->pass)
		return false;
	met.update(&object, &w->pass);
	return true;
}

/* inc_ucount(), kernel/ucount.c: the user pays, who made its namespace, and so on upwards */
static __always_inline void put_users(struct walk_control *w, u64 ucounts)
{
	struct user_row *row;
	u64 ns;
	u32 slot;
	int i;

	for (i = 0; i < USERNS_LEVELS; i++) {
		slot = w->users;
		row = user_rows.lookup(&slot);
		if (!ucounts || !row || !is_first_meeting(w, ucounts))
			return;
		ns = read_u64(ucounts + OFF_UCOUNTS_NS);
		row->ucounts = ucounts;
		row->parent = read_u64(ns + OFF_USER_NAMESPACE_UCOUNTS);
		row->watches_used = used_of(ucounts, UCOUNT_INOTIFY_WATCHES);
		row->watches_limit = limit_in(ns, UCOUNT_INOTIFY_WATCHES);
		row->instances_used = used_of(ucounts, UCOUNT_INOTIFY_INSTANCES);
		row->instances_limit = limit_in(ns, UCOUNT_INOTIFY_INSTANCES);
		row->uid = read_u32(ucounts + OFF_UCOUNTS_UID);
		row->userns = userns_of(ucounts);
		w->users = slot + 1;
		ucounts = row->parent;
	}
}

static __always_inline void note_walk(u64 now)
{
	int zero = 0;
	u64 *at = walked_at.lookup(&zero);

	if (at)
		*at = now;
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
	row->queue_limit = read_u32(row->group + OFF_FSNOTIFY_GROUP_MAX_EVENTS);
	row->oldest = read_u64(row->group + OFF_FSNOTIFY_GROUP_NOTIFICATION_LIST);
	row->read_at = bpf_ktime_get_ns();
	row->ucounts = ucounts_of(row->group);
	note_walk(row->read_at);
	row->reading = READ_ELSEWHERE;
	row->rows = 0;
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
