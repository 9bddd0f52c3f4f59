// SPDX-License-Identifier: GPL-2.0
/*
 * The calls by fexit on their entry points, removals by fentry. BCC takes kind
 * and function from the names: kfunc__ is fentry, kretfunc__ fexit. Those BCC
 * that can attach to modules as well want to read where the function is, too.
 *
 * The entry points have one argument, the registers: what they return comes
 * second. It alone is read: to Linux 5.10 struct pt_regs is a name without
 * fields there, and the verifier refuses a program that touches such a pointer.
 */

#ifdef MODULE_KFUNC_PROBE
#define FENTRY(function)	kfunc__vmlinux__##function
#define FEXIT_OF(prefix, call)	kretfunc__vmlinux__##prefix##call
#else
#define FENTRY(function)	kfunc__##function
#define FEXIT_OF(prefix, call)	kretfunc__##prefix##call
#endif
/* the prefix is a macro itself */
#define FEXIT(prefix, call)	FEXIT_OF(prefix, call)

int FEXIT(NATIVE_PREFIX, inotify_init)(u64 *ctx)
{
	return finish_call(ctx, OP_INIT, ctx[1], no_arguments());
}

int FEXIT(NATIVE_PREFIX, inotify_init1)(u64 *ctx)
{
	return finish_call(ctx, OP_INIT, ctx[1], native_arguments());
}

int FEXIT(NATIVE_PREFIX, inotify_add_watch)(u64 *ctx)
{
	return finish_call(ctx, OP_ADD, ctx[1], native_arguments());
}

int FEXIT(NATIVE_PREFIX, inotify_rm_watch)(u64 *ctx)
{
	return finish_call(ctx, OP_RM, ctx[1], native_arguments());
}

int FEXIT(COMPAT_PREFIX, inotify_init1)(u64 *ctx)
{
	return finish_call(ctx, OP_INIT, ctx[1], compat_arguments());
}

int FEXIT(COMPAT_PREFIX, inotify_add_watch)(u64 *ctx)
{
	return finish_call(ctx, OP_ADD, ctx[1], compat_arguments());
}

int FEXIT(COMPAT_PREFIX, inotify_rm_watch)(u64 *ctx)
{
	return finish_call(ctx, OP_RM, ctx[1], compat_arguments());
}

/* (mark, group) */
int FENTRY(inotify_ignored_and_remove_idr)(u64 *ctx)
{
	return watch_goes(ctx, ctx[0], ctx[1]);
}

/* (inode, file) */
int FENTRY(inotify_release)(u64 *ctx)
{
	return instance_goes(ctx, ctx[1]);
}
