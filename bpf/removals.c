// SPDX-License-Identifier: GPL-2.0
/*
 * Watches that go, seen as they go: inotify_ignored_and_remove_idr runs once
 * for each, whatever the cause, inotify_release once for each instance. The
 * handlers are in kprobe.c and fentry.c.
 */

/* group -> the thread that closed it */
BPF_F_TABLE("lru_hash", u64, u32, closers, 16384, 0);

/* an instance that is closed is told once, not watch by watch: all its watches
 * go in the thread that closes it. Made anew, a group has a generation again. */
static __always_inline bool is_being_closed(u64 group)
{
	u32 *tid = closers.lookup(&group);

	return tid && *tid == (u32)bpf_get_current_pid_tgid() && !generation_of(group);
}

/* no other call of these numbers could remove a watch */
static __always_inline bool is_told_by_call(u32 wd)
{
	struct entry entry = {};

	read_entry(&entry);
	return op_of(entry.number) == OP_RM && (u32)entry.second == wd &&
	       in_scope(bpf_get_current_task(), bpf_get_current_pid_tgid() >> 32);
}

static __always_inline int watch_goes(void *ctx, u64 mark, u64 group)
{
	struct gone_event event = {};

	event.wd = read_u32(mark + OFF_INOTIFY_INODE_MARK_WD);
	if (!is_tracing() || is_being_closed(group) || is_told_by_call(event.wd))
		return 0;
	event.head.op = OP_GONE;
	event.head.tgid = bpf_get_current_pid_tgid() >> 32;
	event.head.ts = bpf_ktime_get_ns();
	event.group = group;
	event.gen = generation_of(group);
	event.trace_bytes = bpf_get_stack(ctx, event.trace, sizeof(event.trace), 0);
	count(SUBMITTED);
	if (events.perf_submit(ctx, &event, sizeof(event)))
		count(LOST);
	return 0;
}

static __always_inline int instance_goes(void *ctx, u64 file)
{
	struct closed_event event = {};
	u32 tid = bpf_get_current_pid_tgid();

	/* inotrace's own instance, to learn from, is no event: see ask.c */
	if (!is_tracing() || is_asker(bpf_get_current_pid_tgid() >> 32))
		return 0;
	event.head.op = OP_CLOSED;
	event.head.tgid = bpf_get_current_pid_tgid() >> 32;
	event.head.ts = bpf_ktime_get_ns();
	event.group = read_u64(file + OFF_FILE_PRIVATE_DATA);
	event.gen = generation_of(event.group);
	closers.update(&event.group, &tid);
	generations.delete(&event.group);
	count(SUBMITTED);
	if (events.perf_submit(ctx, &event, sizeof(event)))
		count(LOST);
	return 0;
}
