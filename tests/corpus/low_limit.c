// SPDX-License-Identifier: GPL-2.0
/*
 * k0s#8113, kind#2586: the limit of watches is too low for what is to be watched. Adds fail with
 * ENOSPC, again and again, for as long as the program tries.
 *
 * A lack of capacity: what is held is flat. The limit is that of a user namespace of its own.
 */
#include "corpus.h"

#define LIMIT	"16"

SITE int limit_new_watcher(void)
{
	return instance();
}

SITE void limit_watch_first(int fd, int number)
{
	watch(fd, at("first-%d", number));
}

SITE int limit_watch_more(int fd, const char *path)
{
	return inotify_add_watch(fd, path, IN_MODIFY);
}

static void set_limit(void)
{
	int fd;

	if (unshare(CLONE_NEWUSER) ||
	    (fd = open("/proc/sys/user/max_inotify_watches", O_WRONLY | O_CLOEXEC)) < 0) {
		perror("user namespace of its own");
		_exit(NOT_ALLOWED);
	}
	MUST(write(fd, LIMIT, strlen(LIMIT)));
	close(fd);
}

int main(int argc, char **argv)
{
	const char *path;
	int fd;

	set_work(argc, argv);
	path = strdup(folder(at("more")));
	for (int i = 0; i < atoi(LIMIT); i++)
		folder(at("first-%d", i));
	set_limit();
	fd = limit_new_watcher();
	for (int i = 0; i < atoi(LIMIT); i++)
		limit_watch_first(fd, i);
	ready();
	for (int i = 0; i < 2 * BEATS; i++) {
		if (limit_watch_more(fd, path) >= 0 || errno != ENOSPC)
			_exit(1);
		if (i % 2)
			step();
	}
	done();
}
