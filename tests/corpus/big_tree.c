// SPDX-License-Identifier: GPL-2.0
/*
 * A large tree is watched once, and kept: what a file synchronizer does.
 *
 * Two thousand watches that are meant to be there. Many is not a leak.
 */
#include "corpus.h"

#define BRANCHES	40
#define LEAVES		50

SITE int big_new_watcher(void)
{
	return instance();
}

SITE void big_watch_folder(int fd, const char *path)
{
	watch(fd, path);
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = big_new_watcher();
	for (int i = 0; i < BRANCHES; i++) {
		folder(at("%d", i));
		for (int j = 0; j < LEAVES; j++)
			big_watch_folder(fd, folder(at("%d/%d", i, j)));
	}
	ready();
	steps(BEATS);
	done();
}
