// SPDX-License-Identifier: GPL-2.0
/*
 * fsnotify#3: whoever ends a watcher removes its watches, and does not close its instance.
 *
 * The watches are balanced to the last. The instances are not.
 */
#include "corpus.h"

SITE int kept_new_watcher(void)
{
	return instance();
}

SITE int kept_add_watch(int fd, const char *path)
{
	return watch(fd, path);
}

static void end_watcher(int fd, int wd)
{
	/* the bug: no close() */
	unwatch(fd, wd);
}

int main(int argc, char **argv)
{
	const char *path;

	set_work(argc, argv);
	path = strdup(folder(at("watched")));
	ready();
	for (int i = 0; i < BEATS / 2; i++) {
		int fd = kept_new_watcher(), wd = kept_add_watch(fd, path);

		step();
		end_watcher(fd, wd);
		step();
	}
	done();
}
