// SPDX-License-Identifier: GPL-2.0
/*
 * Many processes that sleep, of which some hold an instance each.
 *
 *	crowd FOLDER PROCESSES HOLDERS WATCHES
 *
 * Each holder watches WATCHES folders, which all have in common, made in FOLDER. Prints "ready"
 * once all are there; the end of input ends them.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static const char *folder_name(int number)
{
	static char name[32];

	snprintf(name, sizeof(name), "%d", number);
	return name;
}

static void hold(int watches)
{
	int instance = inotify_init1(IN_CLOEXEC);

	if (instance < 0)
		die("inotify_init1");
	for (int i = 0; i < watches; i++)
		if (inotify_add_watch(instance, folder_name(i), IN_CREATE) < 0)
			die("inotify_add_watch");
}

static void live(int watches, int told)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (watches)
		hold(watches);
	if (write(told, "x", 1) != 1)
		die("write");
	close(told);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int processes, holders, watches, pipes[2];
	char told;

	if (argc != 5 || chdir(argv[1])) {
		fprintf(stderr, "usage: crowd FOLDER PROCESSES HOLDERS WATCHES\n");
		return 2;
	}
	processes = atoi(argv[2]);
	holders = atoi(argv[3]);
	watches = atoi(argv[4]);
	for (int i = 0; i < watches; i++)
		if (mkdir(folder_name(i), 0700))
			die("mkdir");
	if (pipe(pipes))
		die("pipe");
	for (int i = 0; i < processes; i++) {
		switch (fork()) {
		case -1:
			die("fork");
		case 0:
			live(i < holders ? watches : 0, pipes[1]);
		}
	}
	close(pipes[1]);
	for (int i = 0; i < processes; i++)
		if (read(pipes[0], &told, 1) != 1)
			die("a child");
	printf("ready\n");
	fflush(stdout);
	while (read(0, &told, 1) > 0)
		;
	/* the children are killed with us */
	return 0;
}
