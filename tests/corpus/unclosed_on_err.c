// SPDX-License-Identifier: GPL-2.0
/*
 * calico#13727: a new instance for a file to watch. Where the file is there, all is closed when the
 * watch ends; where it is not, the add fails, and the function returns without closing.
 *
 * Instances without any watch pile up, opened where others are closed as well.
 */
#include "corpus.h"

SITE int calico_new_watcher(void)
{
	return instance();
}

SITE int calico_add_watch(int fd, const char *path)
{
	return inotify_add_watch(fd, path, IN_MODIFY);
}

static int watch_file(const char *path)
{
	int fd = calico_new_watcher();

	/* the bug */
	if (calico_add_watch(fd, path) < 0)
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	const char *present, *missing;
	int fd;

	set_work(argc, argv);
	present = strdup(touch(at("present.conf")));
	missing = strdup(at("missing.conf"));
	ready();
	for (int i = 0; i < BEATS; i++) {
		fd = watch_file(i % 2 ? missing : present);
		step();
		if (fd >= 0)
			close(fd);
	}
	done();
}
