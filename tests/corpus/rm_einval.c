// SPDX-License-Identifier: GPL-2.0
/*
 * kubernetes#100241: the watched folder of a pod is deleted, and the kernel removes the watch;
 * then the watcher removes it as well, and gets EINVAL, again and again.
 *
 * Errors in the log of the program, and nothing that stays.
 */
#include "corpus.h"

SITE int einval_new_watcher(void)
{
	return instance();
}

SITE int einval_watch_pod(int fd, const char *path)
{
	return watch(fd, path);
}

static void remove_again(int fd, int wd)
{
	if (!inotify_rm_watch(fd, wd) || errno != EINVAL)
		_exit(1);
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = einval_new_watcher();
	ready();
	for (int pod = 0; pod < BEATS; pod++) {
		char *path = folder(at("pod-%d", pod));
		int wd = einval_watch_pod(fd, path);

		step();
		MUST(rmdir(path));
		remove_again(fd, wd);
		drain(fd);
	}
	done();
}
