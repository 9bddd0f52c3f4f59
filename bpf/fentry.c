// SPDX-License-Identifier: GPL-2.0
/*
 * The calls by fexit on their entry points, removals by fentry. BCC takes kind
 * and function from the names that tracer/kernel/probe.py loads these under.
 *
 * The entry points have one argument, the registers: what they return comes
 * second. It alone is read: to Linux 5.10 struct pt_regs is a name without
 * fields there, and the verifier refuses a program that touches such a pointer.
 */

int on_call(u64 *ctx)
{
	return finish_call(ctx, ctx[1]);
}

/* inotify_ignored_and_remove_idr(mark, group) */
int on_removal(u64 *ctx)
{
	return watch_goes(ctx, ctx[0], ctx[1]);
}

/* inotify_release(inode, file) */
int on_release(u64 *ctx)
{
	return instance_goes(ctx, ctx[1]);
}

#ifdef MODULE_KFUNC_PROBE
/* for those BCC that can attach to modules: their names have the module, too */
int names_have_modules(u64 *ctx)
{
	return 0;
}
#endif
