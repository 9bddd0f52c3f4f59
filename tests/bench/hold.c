// SPDX-License-Identifier: GPL-2.0
/*
 * Holds many live watches, spread over a few instances, and does nothing else until asked.
 *
 *	hold FOLDER WATCHES INSTANCES [tree]
 *
 * Makes what to watch in FOLDER and prints "ready": files in folders of a thousand, or, as "tree",
 * folders in folders, each of some others, as editors watch them. Then each line it reads is answered
 * with one line, and the end of input ends it:
 *
 *	watch		adds all watches; the nanoseconds each took on average
 *	worst		from now on a thread adds and removes one more watch of the first instance,
 *			again and again; the nanoseconds of the slowest pair since last asked
 */
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#define FILES_A_FOLDER 1000
/* the first ones of a tree have as many in them */
#define FOLDERS_A_FOLDER 8
/* of the thread, between two pairs: it is a program at work and not a flood */
#define PAUSE_NS 20000
#define INSTANCES_MAX 100

static int instances[INSTANCES_MAX];
static long watches, count;
static atomic_llong worst;
static int is_tree;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int print_tree_name(char *to, int size, long number)
{
	int length = 0;

	if (number >= FOLDERS_A_FOLDER)
		length = print_tree_name(to, size, number / FOLDERS_A_FOLDER - 1);
	return length + snprintf(to + length, size - length, "%s%ld", length ? "/" : "", number);
}

static const char *target_name(long number)
{
	static char name[256];

	if (is_tree)
		print_tree_name(name, sizeof(name), number);
	else
		snprintf(name, sizeof(name), "%ld/%ld", number / FILES_A_FOLDER, number);
	return name;
}

static void make_tree(void)
{
	for (long i = 0; i < watches; i++)
		if (mkdir(target_name(i), 0700))
			die("mkdir");
}

static void make_files(void)
{
	char folder[32];

	for (long i = 0; i < watches; i++) {
		int file;

		if (i % FILES_A_FOLDER == 0) {
			snprintf(folder, sizeof(folder), "%ld", i / FILES_A_FOLDER);
			if (mkdir(folder, 0700))
				die("mkdir");
		}
		file = open(target_name(i), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (file < 0)
			die("open");
		close(file);
	}
}

static void watch_all(void)
{
	long long began = now();

	for (long i = 0; i < watches; i++)
		if (inotify_add_watch(instances[i * count / watches], target_name(i), IN_MODIFY) < 0)
			die("inotify_add_watch");
	printf("%lld\n", (now() - began) / watches);
}

static void *pairs(void *unused)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	char events[4096];

	for (;;) {
		long long began = now(), took;
		int wd = inotify_add_watch(instances[0], ".", IN_CREATE);

		if (wd < 0 || inotify_rm_watch(instances[0], wd))
			die("inotify");
		took = now() - began;
		if (took > atomic_load(&worst))
			atomic_store(&worst, took);
		if (read(instances[0], events, sizeof(events)) < 0)
			die("read");
		nanosleep(&pause, NULL);
	}
	return unused;
}

int main(int argc, char **argv)
{
	char line[64];
	pthread_t thread;
	int works = 0;

	watches = argc > 3 ? atol(argv[2]) : 0;
	count = argc > 3 ? atol(argv[3]) : 0;
	if (watches <= 0 || count <= 0 || count > INSTANCES_MAX) {
		fprintf(stderr, "usage: hold FOLDER WATCHES INSTANCES [tree]\n");
		return 2;
	}
	if (chdir(argv[1]))
		die("chdir");
	setvbuf(stdout, NULL, _IOLBF, 0);
	is_tree = argc > 4 && !strcmp(argv[4], "tree");
	if (is_tree)
		make_tree();
	else
		make_files();
	for (int i = 0; i < count; i++)
		if ((instances[i] = inotify_init1(IN_CLOEXEC)) < 0)
			die("inotify_init1");
	printf("ready\n");
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "watch\n")) {
			watch_all();
		} else if (!strcmp(line, "worst\n")) {
			if (!works++ && pthread_create(&thread, NULL, pairs, NULL))
				die("pthread_create");
			printf("%lld\n", (long long)atomic_exchange(&worst, 0));
		}
	}
	return 0;
}
