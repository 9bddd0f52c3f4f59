// SPDX-License-Identifier: GPL-2.0
/*
 * How a program entered the kernel for a call of inotify: what differs between
 * processors is here, in include/linux/types.h and in tracer/kernel/hooks.py.
 */

/* of a system call, as its caller passed them */
struct entry {
	u64 number;
	u64 first;
	u64 second;
	u64 third;
	u64 pc;
	u64 sp;
	u64 fp;
	u64 link;	/* where the function returns to, if a register tells it */
	bool is_32bit;	/* the program, not just the call */
};

#ifdef BPF_FUNC_TASK_PT_REGS
/* Linux 5.15; not every BCC that runs there declares them */
static void *(*current_task_btf)(void) = (void *)BPF_FUNC_GET_CURRENT_TASK_BTF;
static void *(*task_registers)(void *task) = (void *)BPF_FUNC_TASK_PT_REGS;
#endif

/* THREAD_SIZE of both, with pages of 4 KiB */
#define KERNEL_STACK_SIZE	16384

/* the registers with which the current task entered the kernel */
static __always_inline void read_registers(struct pt_regs *regs)
{
#ifdef BPF_FUNC_TASK_PT_REGS
	void *at = task_registers(current_task_btf());
#else
	/* arch/{x86,arm64}/include/asm/processor.h: task_pt_regs */
	void *at = (void *)(read_u64(bpf_get_current_task() + OFF_TASK_STRUCT_STACK) +
			    KERNEL_STACK_SIZE - SIZE_PT_REGS);
#endif

	bpf_probe_read_kernel(regs, sizeof(*regs), at);
}

/*
 * A number stands for a call of 64-bit programs or of 32-bit ones, never for
 * one of inotify's of both: so it alone tells which it was.
 */
#if defined(__x86_64__)

/* arch/x86/entry/syscalls/syscall_64.tbl */
#define NR_INIT			253
#define NR_ADD_WATCH		254
#define NR_RM_WATCH		255
#define NR_INIT1		294
/* arch/x86/entry/syscalls/syscall_32.tbl */
#define NR_COMPAT_INIT		291
#define NR_COMPAT_ADD_WATCH	292
#define NR_COMPAT_RM_WATCH	293
#define NR_COMPAT_INIT1		332

/* arch/x86/include/uapi/asm/unistd.h: a 64-bit call by a program of 32-bit pointers */
#define X32_SYSCALL_BIT		0x40000000
/* arch/x86/include/asm/segment.h: a 32-bit program's code segment; a 64-bit
 * program may make 32-bit calls as well */
#define USER32_CS		0x23

static __always_inline bool is_compat(u64 number)
{
	return (number >= NR_COMPAT_INIT && number <= NR_COMPAT_RM_WATCH) ||
	       number == NR_COMPAT_INIT1;
}

static __always_inline void read_entry(struct entry *entry)
{
	struct pt_regs regs = {};

	read_registers(&regs);
	entry->number = (u32)regs.orig_ax & ~X32_SYSCALL_BIT;
	entry->pc = regs.ip;
	entry->sp = regs.sp;
	entry->fp = regs.bp;
	entry->link = 0;
	entry->is_32bit = regs.cs == USER32_CS;
	if (is_compat(entry->number)) {
		entry->first = (u32)regs.bx;
		entry->second = (u32)regs.cx;
		entry->third = (u32)regs.dx;
	} else {
		entry->first = regs.di;
		entry->second = regs.si;
		entry->third = regs.dx;
	}
}

/* System V ABI, AMD64 supplement, figure 3.36: the numbers of registers in DWARF */
static __always_inline void number_registers(u64 *to, struct pt_regs *from)
{
	to[0] = from->ax;
	to[1] = from->dx;
	to[2] = from->cx;
	to[3] = from->bx;
	to[4] = from->si;
	to[5] = from->di;
	to[6] = from->bp;
	to[7] = from->sp;
	to[8] = from->r8;
	to[9] = from->r9;
	to[10] = from->r10;
	to[11] = from->r11;
	to[12] = from->r12;
	to[13] = from->r13;
	to[14] = from->r14;
	to[15] = from->r15;
	to[16] = from->ip;
}

/* an address of code, without what may be signed into it */
#define CODE_ADDRESS(word)	(word)

#elif defined(__aarch64__)

/* include/uapi/asm-generic/unistd.h, which has no inotify_init */
#define NR_INIT			NR_INIT1
#define NR_INIT1		26
#define NR_ADD_WATCH		27
#define NR_RM_WATCH		28
/* arch/arm/tools/syscall.tbl */
#define NR_COMPAT_INIT		316
#define NR_COMPAT_ADD_WATCH	317
#define NR_COMPAT_RM_WATCH	318
#define NR_COMPAT_INIT1		360

/* arch/arm64/include/asm/ptrace.h */
#define PSR_MODE32		0x10
#define FP			29
#define LR			30
/* where code of programs is; above may be the signature of a pointer */
#define CODE_ADDRESS(word)	((word) & ((1ULL << 48) - 1))

static __always_inline void read_entry(struct entry *entry)
{
	struct pt_regs regs = {};

	read_registers(&regs);
	entry->number = (u32)regs.syscallno;
	/* the first register has what the call returned */
	entry->first = regs.orig_x0;
	entry->second = regs.regs[1];
	entry->third = regs.regs[2];
	entry->pc = regs.pc;
	entry->sp = regs.sp;
	entry->fp = regs.regs[FP];
	entry->link = CODE_ADDRESS(regs.regs[LR]);
	entry->is_32bit = regs.pstate & PSR_MODE32;
}

/* DWARF for the Arm 64-bit Architecture, 4.1: the numbers of registers, and 32 for the pc */
static __always_inline void number_registers(u64 *to, struct pt_regs *from)
{
	int i;

#pragma unroll
	for (i = 0; i < 31; i++)
		to[i] = from->regs[i];
	to[31] = from->sp;
	to[32] = from->pc;
}

#else
#error "inotrace does not know this processor yet"
#endif

/* 0 if the number is none of inotify's */
static __always_inline u32 op_of(u64 number)
{
	if (number == NR_ADD_WATCH || number == NR_COMPAT_ADD_WATCH)
		return OP_ADD;
	if (number == NR_RM_WATCH || number == NR_COMPAT_RM_WATCH)
		return OP_RM;
	if (number == NR_INIT || number == NR_INIT1 || number == NR_COMPAT_INIT ||
	    number == NR_COMPAT_INIT1)
		return OP_INIT;
	return 0;
}

/* inotify_init, whose registers mean nothing */
static __always_inline bool has_flags(u64 number)
{
	return number == NR_INIT1 || number == NR_COMPAT_INIT1;
}
