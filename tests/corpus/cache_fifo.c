// SPDX-License-Identifier: GPL-2.0
/*
 * A cache of twenty entries, each with a watch. It is filled within the first quarter; from then
 * on each new entry takes the place of the oldest.
 *
 * New watches to the very end, and never more of them than twenty.
 */
#include "corpus.h"

#define ENTRIES		20
#define NEW_A_BEAT	2

SITE int fifo_new_watcher(void)
{
	return instance();
}

SITE int fifo_watch_entry(int fd, int entry)
{
	return watch(fd, folder(at("entry-%d", entry)));
}

int main(int argc, char **argv)
{
	int fd, cache[ENTRIES];

	set_work(argc, argv);
	fd = fifo_new_watcher();
	ready();
	for (int entry = 0; entry < BEATS * NEW_A_BEAT; entry++) {
		if (entry >= ENTRIES)
			unwatch(fd, cache[entry % ENTRIES]);
		cache[entry % ENTRIES] = fifo_watch_entry(fd, entry);
		if (entry % NEW_A_BEAT)
			step();
		drain(fd);
	}
	done();
}
