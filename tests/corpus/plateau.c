// SPDX-License-Identifier: GPL-2.0
/*
 * A cache without eviction of a set that ends: it grows for a third of the time, until all is in
 * it.
 *
 * It never removes any, and it does not grow any more.
 */
#include "corpus.h"

#define ITEMS_A_BEAT	3

SITE int plateau_new_watcher(void)
{
	return instance();
}

SITE void plateau_watch_item(int fd, int beat, int item)
{
	watch(fd, folder(at("item-%d-%d", beat, item)));
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = plateau_new_watcher();
	ready();
	for (int beat = 0; beat < BEATS; beat++) {
		for (int i = 0; i < ITEMS_A_BEAT && beat < BEATS / 3; i++)
			plateau_watch_item(fd, beat, i);
		step();
	}
	done();
}
