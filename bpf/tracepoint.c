// SPDX-License-Identifier: GPL-2.0
/* The calls by the tracepoints at their exits, and a doorbell for removals. */

/* include/trace/events/syscalls.h: sys_exit_* of any call */
struct sys_exit {
	u64 common;
	s32 nr;
	u32 hole;
	s64 ret;
};

int on_call(struct sys_exit *ctx)
{
	return finish_call(ctx, ctx->ret);
}

/* CLOCK_MONOTONIC in ns of the last ring; user space maps it and looks */
BPF_F_TABLE("array", u32, u64, doorbell, 1, BPF_F_MMAPABLE);

#ifdef FSNOTIFY_MARK_DESTROY_WORKFN
/*
 * The kernel frees the marks of fsnotify, whatever removed them, in a worker a
 * moment later: that is the only trace of a removal without a call here. It
 * tells neither which watch nor whose; fanotify rings as well.
 */
int on_work_start(struct bpf_raw_tracepoint_args *ctx)
{
	int zero = 0;
	u64 *rung;

	if (read_u64(ctx->args[0] + OFF_WORK_STRUCT_FUNC) != FSNOTIFY_MARK_DESTROY_WORKFN)
		return 0;
	rung = doorbell.lookup(&zero);
	if (rung)
		*rung = bpf_ktime_get_ns();
	return 0;
}
#endif
