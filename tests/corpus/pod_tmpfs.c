// SPDX-License-Identifier: GPL-2.0
/*
 * A tmpfs a pod is mounted, watched and unmounted, while a process in a mount namespace that was
 * copied meanwhile keeps it alive: the kernel removes the watch only with the last mount.
 *
 * One watch more with each pod, on a filesystem that is in none of this process's mounts. Its own
 * are in a mount namespace of its own, so that none is left behind.
 */
#include "corpus.h"

#define PODS	10

static void separate_mounts(void)
{
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		perror("mounts of its own");
		_exit(NOT_ALLOWED);
	}
}

SITE int tmpfs_new_watcher(void)
{
	return instance();
}

SITE void tmpfs_watch_token(int fd, const char *path)
{
	watch(fd, path);
}

/* a process that starts while the pod is there, and outlives it */
static void copy_mounts(int fd)
{
	int copied[2];
	char byte;

	MUST(pipe2(copied, O_CLOEXEC));
	if (!MUST(fork())) {
		prctl(PR_SET_NAME, "pod_sidecar");
		close(fd);
		separate_mounts();
		close(copied[1]);
		stay();
	}
	close(copied[1]);
	if (read(copied[0], &byte, 1))
		_exit(1);
	close(copied[0]);
}

static void run_pod(int fd, int number)
{
	const char *path = folder(at("pod-%d", number));

	if (mount("pod", path, "tmpfs", 0, "size=64k")) {
		perror(path);
		_exit(NOT_ALLOWED);
	}
	tmpfs_watch_token(fd, path);
	copy_mounts(fd);
	/* and no rmdir(): that detaches what other namespaces have mounted there */
	MUST(umount(path));
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	separate_mounts();
	fd = tmpfs_new_watcher();
	ready();
	for (int number = 0; number < PODS; number++) {
		run_pod(fd, number);
		steps(BEATS / PODS);
	}
	done();
}
