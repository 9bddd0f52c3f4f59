// SPDX-License-Identifier: GPL-2.0
/*
 * A node agent that churns pods and forgets one watch a pod: what `inotrace demo` traces.
 *
 *	agent FOLDER	works below FOLDER, tells each round on stdout, a socket, and goes on when
 *			that is answered; then waits for its end
 *
 * Of 23 pods, 17 have a volume. The agent watches its 5 configuration folders for good, each
 * volume until its pod goes, and the secret of each pod: that watch it never removes.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PODS		23
#define STATELESS_EVERY	4	/* leaves 17 of 23 with a volume */
#define CONFIGS		5
#define ROUND_US	60000

/* a compiler that inlines these would take the names out of the stacks */
#define KEEP __attribute__((noinline, noclone))

static const char *root;
static int instance;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void folder_of(char *path, size_t size, const char *kind, int number)
{
	snprintf(path, size, "%s/%s/%02d", root, kind, number);
	if (mkdir(path, 0700))
		die(path);
}

static void make_folder(const char *kind)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", root, kind);
	if (mkdir(path, 0700))
		die(path);
}

static KEEP void watch_node_config(int number)
{
	char path[PATH_MAX];

	folder_of(path, sizeof(path), "config", number);
	if (inotify_add_watch(instance, path, IN_MODIFY | IN_CREATE) < 0)
		die(path);
}

static KEEP void watch_pod_secret(int pod)
{
	char path[PATH_MAX];

	folder_of(path, sizeof(path), "secrets", pod);
	/* the bug: nobody keeps the descriptor, so nobody can remove the watch */
	if (inotify_add_watch(instance, path, IN_CREATE | IN_DELETE | IN_MOVED_TO) < 0)
		die(path);
}

static KEEP int watch_pod_volume(const char *path)
{
	int wd = inotify_add_watch(instance, path, IN_ALL_EVENTS);

	if (wd < 0)
		die(path);
	return wd;
}

static KEEP void unwatch_pod_volume(int wd)
{
	if (inotify_rm_watch(instance, wd))
		die("inotify_rm_watch");
}

static KEEP void sync_pod(int pod)
{
	char path[PATH_MAX];
	int has_volume = pod % STATELESS_EVERY != 0, wd = 0;

	if (has_volume) {
		folder_of(path, sizeof(path), "volumes", pod);
		wd = watch_pod_volume(path);
	}
	watch_pod_secret(pod);
	usleep(ROUND_US);
	if (has_volume) {
		unwatch_pod_volume(wd);
		rmdir(path);
	}
}

static KEEP void churn_pods(void)
{
	char answer;

	for (int pod = 0; pod < PODS; pod++) {
		sync_pod(pod);
		printf("pod %d of %d came and went\n", pod + 1, PODS);
		fflush(stdout);
		/* so that who looks on sees each round, on a slow machine as well */
		if (read(STDOUT_FILENO, &answer, 1) != 1)
			die("answer");
	}
}

static void load_config(void)
{
	for (int number = 0; number < CONFIGS; number++)
		watch_node_config(number);
}

int main(int argc, char **argv)
{
	const char *kinds[] = { "config", "secrets", "volumes" };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc != 2) {
		fprintf(stderr, "usage: agent FOLDER\n");
		return 2;
	}
	root = argv[1];
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		make_folder(kinds[i]);
	instance = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (instance < 0)
		die("inotify_init1");
	load_config();
	churn_pods();
	fclose(stdout);
	pause();
	return 0;
}
