// SPDX-License-Identifier: GPL-2.0
/*
 * What the perf buffer refuses: calls that had an effect are kept here until
 * user space takes them. Costs nothing as long as nothing is refused.
 *
 * A watch that was added and removed between two visits of user space, both
 * refused, is only tallied, by who added it from where, unless a walk may have
 * seen it: so no flood of pairs can fill the table. So are failed calls.
 */

#ifndef SPILL_ENTRIES
#define SPILL_ENTRIES	32768
#endif
#define SPILLED_STACKS	2048
#ifndef TALLY_ENTRIES
#define TALLY_ENTRIES	4096
#endif
#define CALL_TAKES_NS	10000000ULL

BPF_F_TABLE("hash", struct spill_key, struct spilled, spilled, SPILL_ENTRIES, 0);
/* only ever added to: user space remembers what it has read */
BPF_F_TABLE("hash", struct tally_key, struct spilled, tallies, TALLY_ENTRIES, 0);
BPF_PERCPU_ARRAY(spill_scratch, struct spilled, 1);
/* few places flood: their frames are kept once */
BPF_F_TABLE("lru_hash", u64, struct spilled_stack, spilled_stacks, SPILLED_STACKS, 0);

/* 64 bits of the frames: FNV-1a by words, folded so that high bits count as well */
static __always_inline u64 stack_id(struct spilled_stack *stack, s32 bytes)
{
	u64 id = 0xcbf29ce484222325ULL;
	int i;

	/* unrolled: LLVM turns the loop into one that the verifier cannot follow */
#pragma unroll
	for (i = 0; i < FRAMES_MAX; i++) {
		if (i * 8 < bytes) {
			id = (id ^ stack->frames[i]) * 0x100000001b3ULL;
			id ^= id >> 32;
		}
	}
	return id;
}

static __always_inline u64 keep_stack(struct call_scratch *s)
{
	struct spilled_stack *stack = (struct spilled_stack *)s->tail;
	u64 id;

	if (s->event.stack_bytes <= 0)
		return 0;
	id = stack_id(stack, s->event.stack_bytes);
	if (!spilled_stacks.lookup(&id))
		spilled_stacks.update(&id, stack);
	return id;
}

/* whether no call that told of this watch has reached the buffer: descriptors
 * only grow (idr_alloc_cyclic), so that all above the last one told are news */
static __always_inline bool is_untold(struct spill_key *key)
{
	struct generation *known = generations.lookup(&key->group);

	return known && key->wd > known->told_wd;
}

/* whether a walk may have found the watch: user space will ask what became of it */
static __always_inline bool was_walked(struct spilled *add)
{
	int zero = 0;
	u64 *at = walked_at.lookup(&zero);

	/* the watch was there a moment before its call ended */
	return at && add->event.head.ts < *at + CALL_TAKES_NS;
}

/* whether its frames are only the beginning of its stack, and may be of another one as well */
static __always_inline bool is_unfinished(struct spilled *call)
{
	return call->event.walk_end == WALK_NO_ROW || call->event.walk_end == WALK_KEPT;
}

/* of an instance from before the trace: what it has by now may be known, what comes is news */
static __always_inline void begin_telling(struct spill_key *key)
{
	struct generation now = { .told_wd = key->wd };

	if (!generations.lookup(&key->group))
		generations.update(&key->group, &now);
}

static __always_inline struct spilled *described(struct call_scratch *s)
{
	struct spilled *fresh;
	int zero = 0;

	fresh = spill_scratch.lookup(&zero);
	if (!fresh)
		return 0;
	fresh->event = s->event;
	fresh->times = 1;
	fresh->stack = keep_stack(s);
	bpf_probe_read_kernel(fresh->path, sizeof(fresh->path),
			      &s->tail[(s->event.stack_bytes > 0 ? s->event.stack_bytes : 0) &
				       0x3ff]);
	return fresh;
}

static __always_inline void tally(struct spilled *call, u32 which, u32 records)
{
	struct tally_key key = {
		.birth = call->event.birth,
		.stack = call->stack,
		.tgid = call->event.head.tgid,
		.tally = which,
	};
	struct spilled *known;

	if (which == TALLY_FAILURE) {
		key.op = call->event.head.op;
		key.ret = call->event.ret;
	}
	known = tallies.lookup(&key);
	if (known) {
		__sync_fetch_and_add(&known->times, 1);
		forget_copy(&call->event);
	} else if (tallies.update(&key, call)) {
		count_many(UNHEALED, records);
		forget_copy(&call->event);
	}
}

static __always_inline bool is_pair(struct spill_key *add)
{
	struct spilled *known = spilled.lookup(add);
	struct spilled *copy;
	int zero = 0;

	if (!known || !is_untold(add) || was_walked(known) || is_unfinished(known))
		return false;
	copy = spill_scratch.lookup(&zero);
	if (!copy)
		return false;
	/* user space may take it meanwhile: then this removal is news */
	*copy = *known;
	if (spilled.delete(add))
		return false;
	tally(copy, TALLY_PAIR, 2);
	return true;
}

static __always_inline void spill(struct call_scratch *s)
{
	struct call_event *event = &s->event;
	struct spill_key key = {
		.group = event->group,
		.gen = event->gen,
		.wd = event->head.op == OP_INIT ? 0 :
		      event->head.op == OP_ADD ? event->ret : event->arg,
		.op = OP_ADD,
	};
	struct spilled *call;

	if (event->head.op == OP_RM && event->ret >= 0 && is_pair(&key))
		return;
	call = described(s);
	if (!call)
		return;
	if (event->ret < 0) {
		tally(call, TALLY_FAILURE, 1);
		return;
	}
	if (event->head.op == OP_ADD && spilled.lookup(&key)) {
		tally(call, TALLY_UPDATE, 1);
		return;
	}
	key.op = event->head.op;
	begin_telling(&key);
	if (spilled.update(&key, call)) {
		count(UNHEALED);
		forget_copy(&call->event);
	}
}

static __always_inline void submit_call(void *ctx, struct call_scratch *s, u32 used)
{
	struct generation *known;

	count(SUBMITTED);
	if (events.perf_submit(ctx, s, sizeof(s->event) + (used & 0x1fff))) {
		/* in this order: who sees the number finds what it stands for */
		spill(s);
		count(LOST);
		return;
	}
	if (s->event.head.op != OP_ADD || s->event.ret < 0)
		return;
	known = generations.lookup(&s->event.group);
	if (known && known->told_wd < s->event.ret)
		known->told_wd = s->event.ret;
}
