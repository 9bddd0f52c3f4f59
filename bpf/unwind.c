// SPDX-License-Identifier: GPL-2.0
/*
 * User stacks, walked with unwind rows that user space supplies on demand.
 *
 * A row says how to leave the frame at one pc. Where one is missing, user space
 * gets a copy of the stack, finds the callers from the program's own unwind
 * tables, and puts in the rows of all pcs on the way: the next walk that comes
 * by needs no copy. So copies grow with the places in the code, not with calls.
 */

#ifndef CPUS
#define CPUS		1	/* possible ones */
#endif
#ifndef COPY_ALL
#define COPY_ALL	0	/* for tests: so that each walk can be compared */
#endif
#ifndef UNWIND_ROWS
#define UNWIND_ROWS	65536
#endif
#ifndef KEPT_COPIES
#define KEPT_COPIES	1024	/* what a flood calls until its rows are known */
#endif
#define PAGE_BYTES	4096
#define WINDOW_BYTES	4096	/* a power of two */

/* the stack from its pointer on: most frames lie in it, and are read at once */
struct window {
	u64 at;
	u64 words;		/* offsets at which a whole word is in it */
	u64 end_of_stack;	/* the last one that was met, and whose */
	u64 whose;
	u8 bytes[WINDOW_BYTES + sizeof(u64)];
};

/* a stack_copy under construction; longer than that can be, so that any masked
 * length stays inside it */
struct copy_scratch {
	struct stack_copy copy;
	u8 pages[COPY_PAGES * PAGE_BYTES];
	u8 rest[8192];
};

/* where a walk is */
struct stack_walk {
	u64 sp;
	u64 fp;
	u64 link;
	struct unwind_key key;
};

BPF_PERF_OUTPUT(copies);
BPF_PERCPU_ARRAY(windows, struct window, 1);
/* what the buffer refuses, until user space asks for it */
BPF_F_TABLE("hash", struct kept_key, struct kept_copy, kept_copies, KEPT_COPIES, 0);
/* by processor: values of a per-CPU array are too small */
BPF_ARRAY(copy_scratch, struct copy_scratch, CPUS);
/* LRU: rows of programs that ended, and of code that is no longer run, make room */
BPF_F_TABLE("lru_hash", struct unwind_key, struct unwind_row, unwind_rows, UNWIND_ROWS, 0);

static __always_inline void open_window(struct stack_walk *w, struct window *window)
{
	u32 in_page = WINDOW_BYTES - (w->sp & (WINDOW_BYTES - 1));
	u64 next_page = w->sp + in_page;

	window->at = w->sp;
	window->words = WINDOW_BYTES - sizeof(u64) + 1;
	/* a read across the end of the stack costs a fault, as much as all the rest: not again */
	if ((window->end_of_stack != next_page || window->whose != w->key.birth) &&
	    !bpf_probe_read_user(window->bytes, WINDOW_BYTES, (void *)w->sp))
		return;
	window->end_of_stack = next_page;
	window->whose = w->key.birth;
	window->words = 0;
	if (in_page >= sizeof(u64) && in_page < WINDOW_BYTES &&
	    !bpf_probe_read_user(window->bytes, in_page & (WINDOW_BYTES - 1), (void *)w->sp))
		window->words = in_page - sizeof(u64) + 1;
}

static __always_inline bool read_word(struct window *window, u64 at, u64 *word)
{
	u64 offset = at - window->at;

	if (offset < window->words) {
		*word = *(u64 *)&window->bytes[offset & (WINDOW_BYTES - 1)];
		return true;
	}
	return !bpf_probe_read_user(word, sizeof(*word), (void *)at);
}

static __always_inline u64 measured_from(struct stack_walk *w, u8 from, u64 cfa)
{
	if (from == FROM_SP)
		return w->sp;
	return from == FROM_FP ? w->fp : cfa;
}

/* to the caller's frame; 0, or why not */
static __always_inline u32 leave_frame(struct stack_walk *w, struct window *window,
				       struct unwind_row *row)
{
	u64 fp = w->fp, ra = w->link, cfa;

	if (row->cfa_from == FROM_REGISTERS)
		return WALK_NO_ROW;
	if (row->cfa_from == FROM_UNKNOWN)
		return WALK_UNKNOWN;
	cfa = measured_from(w, row->cfa_from, 0) + row->cfa_offset;
	if (row->flags & UNWIND_CFA_IN_MEMORY && !read_word(window, cfa, &cfa))
		return WALK_UNREADABLE;
	if (row->ra_from != FROM_LINK &&
	    !read_word(window, measured_from(w, row->ra_from, cfa) + row->ra_offset, &ra))
		return WALK_UNREADABLE;
	if (row->fp_from != FROM_NOTHING &&
	    !read_word(window, measured_from(w, row->fp_from, cfa) + row->fp_offset, &fp))
		return WALK_UNREADABLE;
	/* a leaf function may have no frame, but then the link register is still good */
	if (!(row->flags & UNWIND_OTHER_STACK) &&
	    (row->ra_from == FROM_LINK ? cfa < w->sp || !w->link : cfa <= w->sp))
		return WALK_BACKWARD;
	w->sp = cfa;
	w->fp = fp;
	w->link = 0;
	w->key.pc = CODE_ADDRESS(ra);
	if (row->flags & UNWIND_SIGNAL)
		w->key.pc |= EXACT_PC;
	return 0;
}

static __always_inline u32 walk_frames(struct stack_walk *w, struct window *window,
				       struct call_scratch *s)
{
	u64 *frames = (u64 *)s->tail;
	struct unwind_row *row;
	u32 i, end;

	for (i = 0; i < FRAMES_MAX; i++) {
		frames[i & (FRAMES_MAX - 1)] = w->key.pc & ~EXACT_PC;
		s->event.stack_bytes = (i + 1) * sizeof(u64);
		row = unwind_rows.lookup(&w->key);
		if (!row)
			return WALK_NO_ROW;
		s->event.guessed |= row->flags & UNWIND_GUESSED;
		if (row->cfa_from == FROM_NOTHING)
			return WALK_OUTERMOST;
		end = leave_frame(w, window, row);
		if (end)
			return end;
		if (!(w->key.pc & ~EXACT_PC))
			return WALK_OUTERMOST;
	}
	return WALK_TOO_DEEP;
}

/* where a copy is to begin: at the call if the frame is near, since only there all registers
 * are known, else at the frame, or a deep stack would never be known to its end */
static __always_inline u64 copied_from(struct stack_walk *w, u64 call_sp)
{
	return w->sp - call_sp < COPY_PAGES * PAGE_BYTES / 2 ? call_sp : w->sp;
}

/* page by page: one may be missing amid the others, having never been touched, or swapped out */
static __always_inline u32 copy_pages(struct copy_scratch *c)
{
	u64 from = c->copy.base;
	u32 at = -from & (PAGE_BYTES - 1), bytes = 0;
	int i;

	c->copy.present = 0;
	if (!bpf_probe_read_user(c->pages, at, (void *)from)) {
		c->copy.present = 1;
		bytes = at;
	}
#pragma unroll
	for (i = 1; i < COPY_PAGES; i++) {
		if (!bpf_probe_read_user(&c->pages[at & 0xffff], PAGE_BYTES,
					 (void *)(from + at))) {
			c->copy.present |= 1 << i;
			bytes = at + PAGE_BYTES;
		}
		at += PAGE_BYTES;
	}
	return bytes;
}

/* of a call of which nothing is left but a number */
static __always_inline void forget_copy(struct call_event *event)
{
	struct kept_key key = { .ts = event->head.ts, .tid = event->tid };

	if (event->walk_end == WALK_KEPT)
		kept_copies.delete(&key);
}

/* how the walk ends: with a copy that was sent, or kept */
static __always_inline u32 send_copy(void *ctx, struct call_event *event, struct stack_walk *w,
				     u64 call_sp)
{
	struct kept_key key = { .ts = event->head.ts, .tid = event->tid };
	u32 cpu = bpf_get_smp_processor_id();
	struct copy_scratch *c = copy_scratch.lookup(&cpu);
	struct arrival wake = {};

	if (!c)
		return WALK_UNKNOWN;
	/* the registers as they come, where the copied pages will be */
	read_registers((struct pt_regs *)c->pages);
	number_registers(c->copy.registers, (struct pt_regs *)c->pages);
	c->copy.head.op = OP_COPY;
	c->copy.head.tgid = event->head.tgid;
	c->copy.head.ts = event->head.ts;
	c->copy.birth = event->birth;
	c->copy.exec_id = event->exec_id;
	c->copy.tid = event->tid;
	c->copy.pc = w->key.pc;
	c->copy.sp = w->sp;
	c->copy.fp = w->fp;
	c->copy.base = copied_from(w, call_sp);
	c->copy.stack = start_of_stack(bpf_get_current_task());
	c->copy.frames = event->stack_bytes / sizeof(u64) - 1;
	c->copy.bytes = copy_pages(c);
	if (copies.perf_submit(ctx, c, sizeof(c->copy) + (c->copy.bytes & 0xffff))) {
		kept_copies.update(&key, (struct kept_copy *)c);
		return WALK_KEPT;
	}
	arrivals.perf_submit(ctx, &wake, sizeof(wake));
	return WALK_NO_ROW;
}

/* into the tail of the event; how many bytes it took */
static __always_inline u32 append_stack(void *ctx, struct call_scratch *s, struct entry *entry)
{
	struct call_event *event = &s->event;
	struct stack_walk w = {
		.sp = entry->sp,
		.fp = entry->fp,
		.link = entry->link,
		.key = {
			.pc = entry->pc | EXACT_PC,
			.birth = event->birth,
			.tgid = event->head.tgid,
			.exec_id = event->exec_id,
		},
	};
	struct window *window;
	int zero = 0;

	window = windows.lookup(&zero);
	if (!window)
		return 0;
	if (entry->is_32bit) {
		*(u64 *)s->tail = entry->pc;
		event->stack_bytes = sizeof(u64);
		event->walk_end = WALK_COMPAT;
		return sizeof(u64);
	}
	open_window(&w, window);
	event->walk_end = walk_frames(&w, window, s);
	if (COPY_ALL && event->walk_end != WALK_NO_ROW)
		send_copy(ctx, event, &w, entry->sp);
	if (event->walk_end == WALK_NO_ROW)
		event->walk_end = send_copy(ctx, event, &w, entry->sp);
	return event->stack_bytes;
}
