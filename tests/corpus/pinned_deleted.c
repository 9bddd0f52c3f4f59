// SPDX-License-Identifier: GPL-2.0
/*
 * Files are opened, watched and deleted, and stay open: a server that holds on to the logs that
 * logrotate took away. The watch of a deleted file stays until its last descriptor is closed.
 *
 * A burst at the beginning, then flat; but no path leads to what is watched, ever again.
 */
#include "corpus.h"

#define FILES	12

SITE int pinned_new_watcher(void)
{
	return instance();
}

SITE void pinned_watch_log(int fd, const char *path)
{
	watch(fd, path);
}

static void rotate(int fd, int number)
{
	const char *path = touch(at("log.%d", number));

	/* the bug: neither is closed */
	MUST(open(path, O_RDONLY | O_CLOEXEC));
	pinned_watch_log(fd, path);
	MUST(unlink(path));
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = pinned_new_watcher();
	ready();
	for (int number = 0; number < FILES; number++)
		rotate(fd, number);
	drain(fd);
	steps(BEATS);
	done();
}
