// SPDX-License-Identifier: GPL-2.0
/*
 * Adds and removes watches as fast as it can, from several processes at once.
 *
 *	flood PAIRS PROCESSES
 *
 * Prints "ready" and waits for a line before the first call, so that whoever traces can be there
 * by then. Prints the nanoseconds a pair took on average: wall time times processes, by pairs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void flood(long pairs, int begin)
{
	char folder[] = "/tmp/inotrace-flood-XXXXXX";
	char events[4096];
	int instance = inotify_init1(IN_NONBLOCK);

	if (instance < 0 || !mkdtemp(folder))
		die("flood");
	/* ends when the parent closes the other end */
	if (read(begin, events, 1) < 0)
		die("read");
	for (long i = 0; i < pairs; i++) {
		int wd = inotify_add_watch(instance, folder, IN_CREATE);

		if (wd < 0 || inotify_rm_watch(instance, wd))
			die("inotify");
		/* each removal queues IN_IGNORED */
		if (i % 64 == 0)
			while (read(instance, events, sizeof(events)) > 0)
				;
	}
	rmdir(folder);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(int argc, char **argv)
{
	long pairs = argc > 1 ? atol(argv[1]) : 0;
	int processes = argc > 2 ? atoi(argv[2]) : 0;
	int begin[2];
	double began;

	if (pairs <= 0 || processes <= 0) {
		fprintf(stderr, "usage: flood PAIRS PROCESSES\n");
		return 2;
	}
	if (pipe(begin))
		die("pipe");
	for (int i = 0; i < processes; i++) {
		pid_t child = fork();

		if (child < 0)
			die("fork");
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(begin[1]);
			flood(pairs / processes, begin[0]);
			return 0;
		}
	}
	printf("ready\n");
	fflush(stdout);
	if (getchar() != '\n')
		return 1;
	began = now();
	close(begin[1]);
	for (int status = 0; wait(&status) > 0;)
		if (status)
			return 1;
	printf("%.0f\n", (now() - began) * processes / pairs);
	return 0;
}
