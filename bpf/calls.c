// SPDX-License-Identifier: GPL-2.0
/* The exits of the four inotify calls. */

/* include/trace/events/syscalls.h: sys_exit_* of any call */
struct sys_exit {
	u64 common;
	s32 nr;
	u32 hole;
	s64 ret;
};

static __always_inline void announce(void *ctx, struct call_event *event)
{
	struct arrival arrival = {
		.birth = event->birth,
		.tgid = event->head.tgid,
		.exec_id = event->exec_id,
	};
	struct arrival *known = announced.lookup(&arrival.tgid);

	if (known && known->birth == arrival.birth && known->exec_id == arrival.exec_id)
		return;
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
		generations.update(&event->group, &event->head.ts);
	if (event->group)
		event->gen = generation_of(event->group);
}

static __always_inline u32 append_stack(void *ctx, struct call_scratch *s, u64 sp)
{
	s64 bytes = bpf_get_stack(ctx, s->tail, FRAMES_MAX * 8, BPF_F_USER_STACK);

	s->event.caller = 0;
	bpf_probe_read_user(&s->event.caller, sizeof(s->event.caller), (void *)sp);
	s->event.stack_bytes = bytes;
	return bytes > 0 ? bytes : 0;
}

static __always_inline u32 append_path(struct call_scratch *s, u32 used, u64 path)
{
	s64 bytes = bpf_probe_read_user_str(&s->tail[used & 0x3ff], PATH_BYTES_MAX,
					    (void *)path);

	s->event.path_bytes = bytes;
	return bytes > 0 ? used + bytes : used;
}

static __always_inline int finish_call(struct sys_exit *ctx, u32 op)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	u64 task = bpf_get_current_task();
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	bool wanted = in_scope(task, tgid);
	struct call_scratch *s;
	struct call_event *event;
	u32 used = 0;
	int zero = 0;

	/* inotrace's own calls are questions */
	if (is_asker(tgid))
		return op == OP_RM ? answer() : 0;
	/* generations are kept for all, whoever is traced: an instance may be passed on */
	if (!wanted && !(op == OP_INIT && ctx->ret >= 0))
		return 0;
	s = call_scratch.lookup(&zero);
	if (!s)
		return 0;

	event = &s->event;
	event->head.op = op;
	event->head.ts = bpf_ktime_get_ns();
	event->fd = op == OP_INIT ? ctx->ret : regs->di;
	event->ret = ctx->ret;
	event->arg = op == OP_INIT ? regs->di : op == OP_ADD ? regs->dx : regs->si;
	event->stack_bytes = 0;
	event->path_bytes = 0;
	event->caller = 0;
	identify_instance(event, task);
	if (!wanted)
		return 0;
	describe_caller(event, task);
	announce(ctx, event);
	if (STACKS && (op != OP_RM || RM_STACKS))
		used = append_stack(ctx, s, regs->sp);
	if (op == OP_ADD)
		used = append_path(s, used, regs->si);

	count(SUBMITTED);
	if (events.perf_submit(ctx, s, sizeof(*event) + (used & 0x1fff)))
		count(LOST);
	return 0;
}

int on_init_exit(struct sys_exit *ctx)
{
	return finish_call(ctx, OP_INIT);
}

int on_add_watch_exit(struct sys_exit *ctx)
{
	return finish_call(ctx, OP_ADD);
}

int on_rm_watch_exit(struct sys_exit *ctx)
{
	return finish_call(ctx, OP_RM);
}
