/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls inotify_add_watch from random chains of functions whose frames are of
 * every shape: labyrinth FOLDER CALLS SEED. For each line that it reads it goes
 * through so many of them, and answers with a line.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#define DEEPEST 56

static const char *folder;
static int instance;
static uint64_t state;
static volatile int sink;

static void descend(int depth);

static unsigned pick(unsigned below)
{
	/* Marsaglia's xorshift */
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

/* what comes after the call keeps it from being the function's last */
#define THEN sink++

__attribute__((noinline)) static void plain(int depth)
{
	descend(depth);
	THEN;
}

__attribute__((noinline)) static void large(int depth)
{
	volatile char room[3000];

	room[depth] = 1;
	descend(depth);
	sink += room[depth];
}

__attribute__((noinline)) static void of_any_size(int depth)
{
	volatile char *room = alloca(16 + 8 * pick(100));

	room[0] = 1;
	descend(depth);
	sink += room[0];
}

__attribute__((noinline)) static void aligned(int depth)
{
	volatile char room[64] __attribute__((aligned(64)));

	room[depth] = 1;
	descend(depth);
	sink += room[depth];
}

__attribute__((noinline)) static void aligned_of_any_size(int depth)
{
	volatile char room[64] __attribute__((aligned(128)));
	volatile char *more = alloca(16 + 8 * pick(100));

	room[depth] = more[0] = 1;
	descend(depth);
	sink += room[depth] + more[0];
}

__attribute__((noinline, optimize("no-omit-frame-pointer"))) static void pointed(int depth)
{
	descend(depth);
	THEN;
}

__attribute__((noinline)) static void crowded(int depth)
{
	int a = pick(9), b = pick(9), c = pick(9), d = pick(9), e = pick(9), f = pick(9);

	descend(depth);
	sink += a * b + c * d + e * f;
	descend(DEEPEST);
	sink += a + b + c + d + e + f;
}

__attribute__((noinline)) static void many_arguments(int depth, int a, int b, int c, int d, int e,
						     int f, int g, int h)
{
	descend(depth);
	sink += a + b + c + d + e + f + g + h;
}

static int compare(const void *left, const void *right)
{
	(void)left, (void)right;
	descend(DEEPEST - 1);
	return 0;
}

__attribute__((noinline)) static void through_library(int depth)
{
	char pair[2] = { 1, 2 };

	if (depth < DEEPEST - 1)
		descend(depth);
	qsort(pair, 2, 1, compare);
	THEN;
}

static void descend(int depth)
{
	if (depth >= DEEPEST || !pick(12)) {
		if (inotify_add_watch(instance, folder, IN_CREATE) < 0)
			abort();
		THEN;
		return;
	}
	switch (pick(9)) {
	case 0: plain(depth + 1); break;
	case 1: large(depth + 1); break;
	case 2: of_any_size(depth + 1); break;
	case 3: aligned(depth + 1); break;
	case 4: aligned_of_any_size(depth + 1); break;
	case 5: pointed(depth + 1); break;
	case 6: crowded(depth + 1); break;
	case 7: many_arguments(depth + 1, 1, 2, 3, 4, 5, 6, 7, 8); break;
	case 8: through_library(depth + 1); break;
	}
	THEN;
}

int main(int argc, char **argv)
{
	int calls, i;

	if (argc != 4)
		return 2;
	folder = argv[1];
	calls = atoi(argv[2]);
	state = strtoull(argv[3], NULL, 10) | 1;
	instance = inotify_init1(0);
	if (instance < 0)
		return 1;
	while (getchar() != EOF) {
		for (i = 0; i < calls; i++)
			descend(0);
		puts("done");
		fflush(stdout);
	}
	return 0;
}
