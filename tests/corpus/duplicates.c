// SPDX-License-Identifier: GPL-2.0
/*
 * A component asks again and again to be told of changes of the same file, and gets a new instance
 * each time; the older ones stay. Listings of what is watched, sorted by inode, are full of it.
 *
 * All watches have one and the same target.
 */
#include "corpus.h"

SITE int twice_new_watcher(void)
{
	return instance();
}

SITE void twice_watch_resolv(int fd, const char *path)
{
	watch(fd, path);
}

static void subscribe(const char *path)
{
	/* the bug: there is one for this path */
	int fd = twice_new_watcher();

	twice_watch_resolv(fd, path);
}

int main(int argc, char **argv)
{
	const char *path;

	set_work(argc, argv);
	path = strdup(touch(at("resolv.conf")));
	ready();
	for (int i = 0; i < BEATS / 2; i++) {
		subscribe(path);
		steps(2);
	}
	done();
}
