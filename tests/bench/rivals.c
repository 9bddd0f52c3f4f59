// SPDX-License-Identifier: GPL-2.0
/*
 * What tracing costs with the kernel's own stacks: events of the same size as inotrace's, to the
 * same processes, with as little else as can be.
 *
 * STACK is 0 for none, 1 for bpf_get_stack, 2 for bpf_get_stackid.
 */
#include <uapi/linux/ptrace.h>
#include "wire.h"

#define PATH_BYTES	26	/* of deep.c's folder */

struct sys_exit {
	u64 common;
	s32 nr;
	u32 hole;
	s64 ret;
};

struct scratch {
	struct call_event event;
	u8 tail[1024];
};

BPF_PERF_OUTPUT(events);
BPF_PERCPU_ARRAY(scratches, struct scratch, 1);
BPF_F_TABLE("hash", u32, u8, scope, 1024, 0);
#if STACK == 2
BPF_STACK_TRACE(stacks, 16384);
#endif

static __always_inline int tell(struct sys_exit *ctx, u32 op)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32, used = 0;
	struct scratch *s;
	int zero = 0;

	if (!scope.lookup(&tgid))
		return 0;
	s = scratches.lookup(&zero);
	if (!s)
		return 0;
	s->event.head.op = op;
	s->event.head.tgid = tgid;
	s->event.head.ts = bpf_ktime_get_ns();
	s->event.tid = bpf_get_current_pid_tgid();
	s->event.ret = ctx->ret;
	s->event.stack_bytes = 0;
	s->event.path_bytes = 0;
	if (op == OP_ADD) {
#if STACK == 1
		s->event.stack_bytes = bpf_get_stack(ctx, s->tail, FRAMES_MAX * sizeof(u64),
						     BPF_F_USER_STACK);
#elif STACK == 2
		s->event.detail = stacks.get_stackid(ctx, BPF_F_USER_STACK);
#endif
		used = s->event.stack_bytes > 0 ? s->event.stack_bytes : 0;
		s->event.path_bytes = PATH_BYTES;
		used += PATH_BYTES;
	}
	events.perf_submit(ctx, s, sizeof(s->event) + (used & 0x3ff));
	return 0;
}

int on_add(struct sys_exit *ctx)
{
	return tell(ctx, OP_ADD);
}

int on_rm(struct sys_exit *ctx)
{
	return tell(ctx, OP_RM);
}
