// SPDX-License-Identifier: GPL-2.0
/* The calls by kretprobes on their entry points, removals by kprobes. */

int on_call(struct pt_regs *ctx)
{
	return finish_call(ctx, PT_REGS_RC(ctx));
}

/* inotify_ignored_and_remove_idr(mark, group) */
int on_removal(struct pt_regs *ctx)
{
	return watch_goes(ctx, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx));
}

/* inotify_release(inode, file) */
int on_release(struct pt_regs *ctx)
{
	return instance_goes(ctx, PT_REGS_PARM2(ctx));
}
