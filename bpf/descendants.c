// SPDX-License-Identifier: GPL-2.0
/*
 * Following a command: children join the scope of their parent, and when a
 * process ends, the watches that its instances still have are told, because
 * only then can "freed by exit alone" be kept apart from "removed before".
 */

#define STEPS		512	/* of fds and watches, in one link of the chain */
#define LINKS		32	/* the kernel's MAX_TAIL_CALL_CNT, less one */

/* where the walk over fds and their watches stands between two links */
struct last_walk {
	struct last_event event;
	u64 open_fds;	/* bitmap of the slots that are in use */
	u64 files;
	u64 slots;
	u64 fd;
	u64 end;	/* list head of the group being walked, 0: none */
	u64 next;	/* list node to look at */
	u32 links;
	u32 unused;
};

/* apart from the calls, so that no flood of them can displace an end */
BPF_PERF_OUTPUT(endings);
BPF_PERCPU_ARRAY(last_walk, struct last_walk, 1);
BPF_PROG_ARRAY(last_chain, 1);
/* tid of the thread that starts a command right now, 0: none. Of its process,
 * which is not in scope, only what this thread forks is. */
BPF_ARRAY(spawner, u32, 1);

static __always_inline void submit_last(void *ctx, struct last_walk *w)
{
	u32 bytes = sizeof(w->event) - sizeof(w->event.wd) +
		    4 * (w->event.count & (LAST_WDS_MAX - 1));

	/* also without watches: user space must learn that this holder ended */
	count(SUBMITTED);
	if (endings.perf_submit(ctx, &w->event, bytes & 0xfff)) {
		count(LOST);
		count(UNHEALED);
	}
	w->event.count = 0;
}

static __always_inline void open_next_group(struct last_walk *w, u64 fops)
{
	u64 in_use = read_u64(w->open_fds + w->fd / 64 * 8) >> (w->fd & 63);
	u64 group;

	/* tables may be large and empty */
	if (!in_use) {
		w->fd = (w->fd | 63) + 1;
		return;
	}
	if (!(in_use & 0xff)) {
		w->fd += 8;
		return;
	}
	group = group_of_file(read_u64(w->files + 8 * w->fd), fops);
	w->fd++;
	if (!group)
		return;
	w->event.group = group;
	w->event.gen = generation_of(group);
	w->end = group + OFF_FSNOTIFY_GROUP_MARKS_LIST;
	w->next = read_u64(w->end);
}

static __always_inline void note_watch(struct last_walk *w)
{
	u64 mark = w->next - OFF_FSNOTIFY_MARK_G_LIST;
	u32 slot = w->event.count & (LAST_WDS_MAX - 1);

	if (read_u64(mark + OFF_FSNOTIFY_MARK_GROUP) != w->event.group) {
		/* another holder took this mark away under the walk */
		w->event.truncated = 1;
		w->next = w->end;
		return;
	}
	w->event.wd[slot] = read_u32(mark + OFF_INOTIFY_INODE_MARK_WD);
	w->event.count = slot + 1;
	w->next = read_u64(w->next);
}

int on_last_walk(struct bpf_raw_tracepoint_args *ctx)
{
	u64 fops = inotify_fops();
	int zero = 0, step;
	struct last_walk *w = last_walk.lookup(&zero);

	if (!w)
		return 0;
	for (step = 0; step < STEPS; step++) {
		if (w->end && w->next && w->next != w->end) {
			note_watch(w);
			if (w->event.count == LAST_WDS_MAX - 1)
				submit_last(ctx, w);
		} else if (w->end) {
			submit_last(ctx, w);
			w->event.truncated = 0;
			w->end = 0;
		} else if (w->fd < w->slots) {
			open_next_group(w, fops);
		} else {
			return 0;
		}
	}
	if (w->links++ < LINKS)
		last_chain.call(ctx, 0);
	/* too much to walk: say so for the group at hand */
	w->event.truncated = 1;
	submit_last(ctx, w);
	return 0;
}

static __always_inline bool is_spawner(u32 tid)
{
	int zero = 0;
	u32 *known = spawner.lookup(&zero);

	return known && *known == tid;
}

int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 forking = bpf_get_current_pid_tgid();
	u32 parent = forking >> 32;
	u32 child = read_u32(ctx->args[1] + OFF_TASK_STRUCT_TGID);
	u8 yes = 1;

	if (child == parent)
		return 0;
	if (!scope.lookup(&parent) && !is_spawner((u32)forking))
		return 0;
	if (scope.update(&child, &yes))
		count(UNFOLLOWED);
	return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = bpf_get_current_task();
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct fd_table table;
	struct last_walk *w;
	int zero = 0;

	if (!scope.lookup(&tgid))
		return 0;
	/* other threads live on: not the end of the process */
	if (read_u32(read_u64(task + OFF_TASK_STRUCT_SIGNAL) + OFF_SIGNAL_STRUCT_LIVE))
		return 0;
	scope.delete(&tgid);
	w = last_walk.lookup(&zero);
	if (!w)
		return 0;
	table = fd_table_of(task);
	w->event.head.op = OP_LAST;
	w->event.head.tgid = tgid;
	w->event.head.ts = bpf_ktime_get_ns();
	w->event.birth = birth_of(task);
	w->event.group = 0;
	w->event.gen = 0;
	w->event.count = 0;
	w->event.truncated = 0;
	w->open_fds = table.open_fds;
	w->files = table.files;
	w->slots = table.slots;
	w->fd = 0;
	w->end = 0;
	w->next = 0;
	w->links = 0;
	last_chain.call(ctx, 0);
	return 0;
}
