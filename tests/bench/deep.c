// SPDX-License-Identifier: GPL-2.0
/*
 * Adds watches from so many frames deep, and times itself.
 *
 *	deep FRAMES
 *
 * Prints "ready", then answers lines with the nanoseconds of CPU that one round took:
 *
 *	pairs ROUNDS		an add and the removal of that watch, always by the same path
 *	same ROUNDS PATH	adds only, always by the same path
 *	other ROUNDS FIRST	adds only, each by another path, numbered from FIRST on
 *
 * A path is through one of two functions at each level, a bit of PATH says which: so there are
 * more paths than anyone has seen, all by the same few places in the code. FRAMES are those of a
 * complete stack: from the C library's function for the call to _start.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

/* the C library's before and after ours, and main */
#define OTHER_FRAMES	6
/* odd, so that numbers in a row are paths that differ all over */
#define SPREAD		0x9e3779b97f4a7c15UL

#define DEPTHS(X) \
	X(1, 0) X(2, 1) X(3, 2) X(4, 3) X(5, 4) X(6, 5) X(7, 6) X(8, 7) \
	X(9, 8) X(10, 9) X(11, 10) X(12, 11) X(13, 12) X(14, 13) X(15, 14) X(16, 15) \
	X(17, 16) X(18, 17) X(19, 18) X(20, 19) X(21, 20) X(22, 21) X(23, 22) X(24, 23) \
	X(25, 24) X(26, 25) X(27, 26) X(28, 27) X(29, 28) X(30, 29) X(31, 30) X(32, 31) \
	X(33, 32) X(34, 33) X(35, 34) X(36, 35) X(37, 36) X(38, 37) X(39, 38) X(40, 39) \
	X(41, 40) X(42, 41) X(43, 42) X(44, 43) X(45, 44) X(46, 45) X(47, 46) X(48, 47)

/* neither inlined nor merged with the one that does the same */
#define FUNCTION	__attribute__((noipa, unused))

static int instance;
static char folder[] = "/tmp/inotrace-deep-XXXXXX";

static void die(const char *what)
{
	perror(what);
	exit(1);
}

#define INNERMOST(name) \
	static FUNCTION int name(unsigned long path) \
	{ \
		volatile char room[24] = {}; \
		return inotify_add_watch(instance, folder, IN_CREATE) + room[path & 7]; \
	}
INNERMOST(a0)
INNERMOST(b0)

/* room: as in programs, some functions have more of it than others */
#define LEVEL(name, depth, a, b) \
	static FUNCTION int name(unsigned long path) \
	{ \
		volatile char room[8 + depth * 40 % 97]; \
		room[path & 7] = 0; \
		return (path >> depth & 1 ? b(path) : a(path)) + room[path & 7]; \
	}
#define BOTH(depth, below) \
	LEVEL(a##depth, depth, a##below, b##below) LEVEL(b##depth, depth, a##below, b##below)
DEPTHS(BOTH)

#define NAME(depth, below) a##depth,
static int (*const from[])(unsigned long) = { a0, DEPTHS(NAME) };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static void drain(void)
{
	char events[4096];

	while (read(instance, events, sizeof(events)) > 0)
		;
}

int main(int argc, char **argv)
{
	int depth = (argc > 1 ? atoi(argv[1]) : 0) - OTHER_FRAMES;
	char line[80], what[8];

	if (depth < 0 || depth >= (int)(sizeof(from) / sizeof(*from))) {
		fprintf(stderr, "usage: deep FRAMES\n");
		return 2;
	}
	instance = inotify_init1(IN_NONBLOCK);
	if (instance < 0 || !mkdtemp(folder))
		die("deep");
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		unsigned long path = 0, step = 0;
		bool removes;
		long rounds;
		double began;

		if (sscanf(line, "%7s %ld %lu", what, &rounds, &path) < 2)
			return 2;
		removes = !strcmp(what, "pairs");
		if (!strcmp(what, "other")) {
			path *= SPREAD;
			step = SPREAD;
		}
		began = now();
		for (long i = 0; i < rounds; i++, path += step) {
			int wd = from[depth](path);

			if (wd < 0 || (removes && inotify_rm_watch(instance, wd)))
				die("inotify");
			/* each removal queues IN_IGNORED */
			if (i % 64 == 0)
				drain();
		}
		printf("%.0f\n", (now() - began) / rounds);
		fflush(stdout);
	}
	rmdir(folder);
	return 0;
}
