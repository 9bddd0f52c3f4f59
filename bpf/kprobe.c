// SPDX-License-Identifier: GPL-2.0
/* The calls by kretprobes on their entry points, removals by kprobes. */

int on_old_init_return(struct pt_regs *ctx)
{
	return finish_call(ctx, OP_INIT, ctx->ax, no_arguments());
}

int on_init_return(struct pt_regs *ctx)
{
	return finish_call(ctx, OP_INIT, ctx->ax, native_arguments());
}

int on_add_watch_return(struct pt_regs *ctx)
{
	return finish_call(ctx, OP_ADD, ctx->ax, native_arguments());
}

int on_rm_watch_return(struct pt_regs *ctx)
{
	return finish_call(ctx, OP_RM, ctx->ax, native_arguments());
}

int on_compat_init_return(struct pt_regs *ctx)
{
	return finish_call(ctx, OP_INIT, ctx->ax, compat_arguments());
}

int on_compat_add_watch_return(struct pt_regs *ctx)
{
	return finish_call(ctx, OP_ADD, ctx->ax, compat_arguments());
}

int on_compat_rm_watch_return(struct pt_regs *ctx)
{
	return finish_call(ctx, OP_RM, ctx->ax, compat_arguments());
}

/* inotify_ignored_and_remove_idr(mark, group) */
int on_removal(struct pt_regs *ctx)
{
	return watch_goes(ctx, ctx->di, ctx->si);
}

/* inotify_release(inode, file) */
int on_release(struct pt_regs *ctx)
{
	return instance_goes(ctx, ctx->si);
}
