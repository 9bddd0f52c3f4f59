// SPDX-License-Identifier: GPL-2.0
/*
 * A watch that fires once and is then gone (IN_ONESHOT), armed again each time.
 *
 * As many adds as beats and no removal by anybody but the kernel; one watch at any time.
 */
#include "corpus.h"

SITE int oneshot_new_watcher(void)
{
	return instance();
}

SITE void oneshot_arm(int fd, const char *path)
{
	MUST(inotify_add_watch(fd, path, IN_MODIFY | IN_ONESHOT));
}

int main(int argc, char **argv)
{
	char *path;
	int fd;

	set_work(argc, argv);
	path = strdup(touch(at("file")));
	fd = oneshot_new_watcher();
	ready();
	for (int beat = 0; beat < BEATS; beat++) {
		oneshot_arm(fd, path);
		step();
		/* the last stays armed */
		if (beat < BEATS - 1)
			touch(path);
		drain(fd);
	}
	done();
}
