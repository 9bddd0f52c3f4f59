// SPDX-License-Identifier: GPL-2.0
/*
 * A finished inotify call. The handlers are in tracepoint.c, kprobe.c and
 * fentry.c, of which one is compiled.
 */

/* include/uapi/asm-generic/errno-base.h */
#define EMFILE		24
#define ENOSPC		28

static __always_inline void announce(void *ctx, struct call_event *event, u64 task)
{
	struct arrival arrival = {
		.birth = event->birth,
		.tgid = event->head.tgid,
		.exec_id = event->exec_id,
	};
	struct arrival *known = announced.lookup(&arrival.tgid);

	if (known && known->birth == arrival.birth && known->exec_id == arrival.exec_id)
		return;
	arrival.stack = start_of_stack(task);
	announced.update(&arrival.tgid, &arrival);
	arrivals.perf_submit(ctx, &arrival, sizeof(arrival));
}

static __always_inline void describe_caller(struct call_event *event, u64 task)
{
	u64 id = bpf_get_current_pid_tgid();

	event->head.tgid = id >> 32;
	event->tid = id;
	event->uid = effective_uid(task);
	event->birth = birth_of(task);
	event->exec_id = read_u32(task + OFF_TASK_STRUCT_SELF_EXEC_ID);
	read_comm(event->comm, task);
}

static __always_inline void begin_generation(struct call_event *event)
{
	struct generation now = { .gen = event->head.ts };

	generations.update(&event->group, &now);
}

static __always_inline void identify_instance(struct call_event *event, u64 task)
{
	struct fd_table table = fd_table_of(task);
	u32 fd = event->fd;

	event->group = 0;
	event->gen = 0;
	if (fd >= table.slots)
		return;
	event->group = group_of_file(read_u64(table.files + 8 * (u64)fd), inotify_fops());
	if (event->group && event->head.op == OP_INIT)
		begin_generation(event);
	if (event->group)
		event->gen = generation_of(event->group);
}

/* a new mark goes to the head of its group's list (fsnotify_add_mark_locked); another thread
 * may have put one before it, and an update moves none: then the next walk tells */
static __always_inline void identify_target(struct call_event *event)
{
	u64 node = read_u64(event->group + OFF_FSNOTIFY_GROUP_MARKS_LIST);
	u64 mark = node - OFF_FSNOTIFY_MARK_G_LIST, inode;

	if (read_u32(mark + OFF_INOTIFY_INODE_MARK_WD) != event->ret)
		return;
	inode = inode_of_mark(mark);
	if (!inode)
		return;
	event->inode = inode;
	event->detail = read_u32(inode + OFF_INODE_I_GENERATION);
	event->ino = read_u64(inode + OFF_INODE_I_INO);
	event->dev = device_of_superblock(read_u64(inode + OFF_INODE_I_SB));
}

static __always_inline void identify_payer(struct call_event *event)
{
	u64 ucounts = ucounts_of(event->group);

	event->dev = read_u32(ucounts + OFF_UCOUNTS_UID);
	event->ino = userns_of(ucounts);
}

static __always_inline u32 append_path(struct call_scratch *s, u32 used, u64 path)
{
	s64 bytes = bpf_probe_read_user_str(&s->tail[used & 0x3ff], PATH_BYTES_MAX,
					    (void *)path);

	s->event.path_bytes = bytes;
	return bytes > 0 ? used + bytes : used;
}

/* who of the user and those who made its namespaces, outward, has all it may have; 0: nobody */
static __always_inline u64 full_user(u64 ucounts, u32 which)
{
	u64 ns;
	int i;

	for (i = 0; i < USERNS_LEVELS && ucounts; i++) {
		ns = read_u64(ucounts + OFF_UCOUNTS_NS);
		if (used_of(ucounts, which) >= limit_in(ns, which))
			return ucounts;
		ucounts = read_u64(ns + OFF_USER_NAMESPACE_UCOUNTS);
	}
	return 0;
}

static __always_inline void tell_full_user(struct call_event *event, u64 ucounts, u32 which)
{
	u64 full = full_user(ucounts, which);

	if (!full)
		return;
	event->dev = read_u32(full + OFF_UCOUNTS_UID);
	event->ino = userns_of(full);
	event->inode = (u64)used_of(full, which) << 32 |
		       (u32)limit_in(read_u64(full + OFF_UCOUNTS_NS), which);
}

/* do_inotify_init() takes an instance first, then a descriptor, and gives both as EMFILE.
 * Whoever has all instances that it may have could not take one more. */
static __always_inline void tell_what_is_exhausted(struct call_event *event, u64 task)
{
	u64 ucounts;

	event->detail = EXHAUSTED_UNKNOWN;
	if (!OFF_CRED_UCOUNTS)
		return;
	/* that of the real user: set_cred_ucounts(); the effective one is charged */
	ucounts = read_u64(read_u64(task + OFF_TASK_STRUCT_CRED) + OFF_CRED_UCOUNTS);
	if (read_u32(ucounts + OFF_UCOUNTS_UID) != effective_uid(task))
		return;
	tell_full_user(event, ucounts, UCOUNT_INOTIFY_INSTANCES);
	event->detail = event->ino ? EXHAUSTED_INSTANCES : EXHAUSTED_DESCRIPTORS;
}

static __always_inline void tell_call(void *ctx, struct call_scratch *s, u32 op, s64 ret,
				      struct entry *entry, bool wanted)
{
	u64 task = bpf_get_current_task();
	struct call_event *event = &s->event;
	u32 used = 0;

	event->head.op = op;
	event->head.ts = bpf_ktime_get_ns();
	event->ret = ret;
	if (op == OP_INIT) {
		event->fd = ret;
		event->arg = has_flags(entry->number) ? entry->first : 0;
	} else {
		event->fd = entry->first;
		event->arg = op == OP_ADD ? entry->third : entry->second;
	}
	event->stack_bytes = 0;
	event->path_bytes = 0;
	event->walk_end = WALK_OUTERMOST;
	event->guessed = 0;
	event->inode = 0;
	event->ino = 0;
	event->dev = 0;
	event->detail = 0;
	identify_instance(event, task);
	if (!wanted)
		return;
	describe_caller(event, task);
	announce(ctx, event, task);
	if (op == OP_ADD && event->group && event->ret > 0)
		identify_target(event);
	else if (op == OP_INIT && event->group)
		identify_payer(event);
	else if (op == OP_INIT && ret == -EMFILE)
		tell_what_is_exhausted(event, task);
	else if (op == OP_ADD && ret == -ENOSPC && event->group)
		tell_full_user(event, ucounts_of(event->group), UCOUNT_INOTIFY_WATCHES);
	if (STACKS && (op != OP_RM || RM_STACKS))
		used = append_stack(ctx, s, entry);
	if (op == OP_ADD)
		used = append_path(s, used, entry->second);
	submit_call(ctx, s, used);
}

/*
 * One program for all calls: to tell them apart by number costs less than to
 * compile, verify and keep it for each of them.
 */
static __always_inline int finish_call(void *ctx, s64 ret)
{
	u32 op, tgid = bpf_get_current_pid_tgid() >> 32;
	struct entry entry = {};
	struct call_scratch *s;
	int zero = 0;
	bool wanted;

	/* inotrace's own calls are questions */
	if (is_asker(tgid)) {
		read_entry(&entry);
		return op_of(entry.number) == OP_RM ? answer() : 0;
	}
	if (!is_tracing())
		return 0;
	wanted = in_scope(bpf_get_current_task(), tgid);
	read_entry(&entry);
	op = op_of(entry.number);
	/* generations are kept for all, whoever is traced: an instance may be passed on */
	if (!op || (!wanted && !(op == OP_INIT && ret >= 0)))
		return 0;
	s = call_scratch.lookup(&zero);
	if (!s)
		return 0;
	/* a program of fentry can be preempted by another one on the same processor */
	__sync_fetch_and_add(&s->busy, 1);
	if (s->busy == 1) {
		tell_call(ctx, s, op, ret, &entry, wanted);
	} else {
		count(LOST);
		count(UNHEALED);
	}
	__sync_fetch_and_add(&s->busy, -1);
	return 0;
}
