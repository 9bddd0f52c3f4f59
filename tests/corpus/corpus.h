/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs of the corpus share.
 *
 *	PROGRAM FOLDER [MILLISECONDS]
 *
 * FOLDER is there, is empty, and is the program's own to work in; a beat takes so many
 * milliseconds, 100 by default. The program writes "ready" when it is set up, begins when it is
 * sent a line, works for about BEATS beats, writes "done", and stays with all that it holds until
 * standard input is closed. Closed earlier, it ends at once; so does each process it forked,
 * for all of them wait on the same pipe. (It forks when it has begun: what is read before is the
 * line.) It exits with 77 where it is not allowed what it needs.
 *
 * What the report is to name is a function marked SITE, called from one place.
 */
#ifndef CORPUS_H
#define CORPUS_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BEATS		40
#define NOT_ALLOWED	77

/* a compiler that inlines these would take the names out of the stacks */
#define SITE static __attribute__((noinline, noclone))
/* and these would stand in the stacks between the call and the site */
#define HELPER static inline __attribute__((always_inline, unused))
#define COMMON static __attribute__((unused))

/* ends the program unless the call succeeded; its result otherwise */
#define MUST(call) must((call), #call)

static const char *work;
static int beat_ms = 100;

COMMON int must(int result, const char *call)
{
	if (result < 0) {
		perror(call);
		_exit(1);
	}
	return result;
}

/* --- the course of a program --- */

COMMON void say(const char *word)
{
	dprintf(STDOUT_FILENO, "%s\n", word);
}

COMMON int milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec % 1000000 * 1000 + now.tv_nsec / 1000000;
}

/* wait one beat */
COMMON void step(void)
{
	struct pollfd end = { .fd = STDIN_FILENO, .events = POLLIN };
	int until = milliseconds() + beat_ms, left;

	while ((left = until - milliseconds()) > 0)
		if (poll(&end, 1, left) > 0)
			_exit(0);
}

COMMON void steps(int beats)
{
	while (beats--)
		step();
}

/* hold everything until standard input is closed */
COMMON __attribute__((noreturn)) void stay(void)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	_exit(0);
}

COMMON void set_work(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: %s FOLDER [MILLISECONDS]\n", argv[0]);
		exit(2);
	}
	work = argv[1];
	if (argc > 2)
		beat_ms = atoi(argv[2]);
}

COMMON void ready(void)
{
	char byte;

	say("ready");
	while (read(STDIN_FILENO, &byte, 1) == 1)
		if (byte == '\n')
			return;
	_exit(0);
}

COMMON __attribute__((noreturn)) void done(void)
{
	say("done");
	stay();
}

/* --- files --- */

/* a path below the folder of the program; good until this was called seven times more */
COMMON __attribute__((format(printf, 1, 2))) char *at(const char *format, ...)
{
	static __thread char made[8][PATH_MAX];
	static __thread unsigned int next;
	char *path = made[next++ % 8];
	int used = snprintf(path, PATH_MAX, "%s/", work);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path + used, PATH_MAX - used, format, arguments);
	va_end(arguments);
	return path;
}

COMMON char *folder(char *path)
{
	MUST(mkdir(path, 0755));
	return path;
}

/* an event for who watches it or its folder */
COMMON char *touch(char *path)
{
	int fd = MUST(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));

	MUST(write(fd, "x", 1));
	close(fd);
	return path;
}

/* --- inotify --- */

HELPER int instance(void)
{
	return MUST(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
}

HELPER int watch(int fd, const char *path)
{
	return MUST(inotify_add_watch(fd, path, IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVE));
}

HELPER void unwatch(int fd, int wd)
{
	MUST(inotify_rm_watch(fd, wd));
}

/* read and forget all events there are */
COMMON void drain(int fd)
{
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	while (read(fd, events, sizeof(events)) > 0)
		;
}

/* --- chance, the same in every run --- */

COMMON int roll(int sides)
{
	static unsigned int state = 20091;

	state = state * 1664525 + 1013904223;
	return (state >> 16) % sides;
}

#endif
