// SPDX-License-Identifier: GPL-2.0
/*
 * A job watches twenty folders, four on each beat, and when it is through it removes them all; then
 * comes the next job. The last one is under way at the end.
 *
 * It grows up to the end of the trace, as it did before, and fell each time.
 */
#include "corpus.h"

#define WATCHES	20
#define A_BEAT	4

SITE int batch_new_watcher(void)
{
	return instance();
}

SITE int batch_watch_item(int fd, int number)
{
	return watch(fd, at("item-%d", number));
}

int main(int argc, char **argv)
{
	int fd, count = 0, wds[WATCHES];

	set_work(argc, argv);
	for (int i = 0; i < WATCHES; i++)
		folder(at("item-%d", i));
	fd = batch_new_watcher();
	ready();
	/* six beats a job; the last has had three */
	for (int beat = 0; beat < BEATS - 1; beat++) {
		if (count == WATCHES)
			while (count)
				unwatch(fd, wds[--count]);
		else
			for (int i = 0; i < A_BEAT; i++, count++)
				wds[count] = batch_watch_item(fd, count);
		drain(fd);
		step();
	}
	done();
}
