// SPDX-License-Identifier: GPL-2.0
/*
 * The same three folders are added on every beat, each time with another mask. The kernel answers
 * with the same descriptor: it changes the watch that is there.
 *
 * Who counts successful adds sees 120; there are three.
 */
#include "corpus.h"

#define FOLDERS	3

SITE int update_new_watcher(void)
{
	return instance();
}

SITE void update_watch_again(int fd, int number, int beat)
{
	unsigned int mask = beat % 2 ? IN_MODIFY : IN_CREATE | IN_DELETE;

	MUST(inotify_add_watch(fd, at("folder-%d", number), mask));
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	for (int i = 0; i < FOLDERS; i++)
		folder(at("folder-%d", i));
	fd = update_new_watcher();
	ready();
	for (int beat = 0; beat < BEATS; beat++) {
		for (int i = 0; i < FOLDERS; i++)
			update_watch_again(fd, i, beat);
		step();
	}
	done();
}
