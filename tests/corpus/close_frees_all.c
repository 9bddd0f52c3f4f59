// SPDX-License-Identifier: GPL-2.0
/*
 * systemd#15381: an instance for each query of the journal, with five watches, none of which is
 * ever removed: the instance is closed, and that frees them.
 *
 * Who counts inotify_rm_watch() alone cries leak.
 */
#include "corpus.h"

#define WATCHES	5

SITE int journal_open(void)
{
	return instance();
}

SITE void journal_watch_folder(int fd, int number)
{
	watch(fd, at("journal-%d", number));
}

int main(int argc, char **argv)
{
	set_work(argc, argv);
	for (int i = 0; i < WATCHES; i++)
		folder(at("journal-%d", i));
	ready();
	for (int query = 0; query < BEATS / 2; query++) {
		int fd = journal_open();

		for (int i = 0; i < WATCHES; i++)
			journal_watch_folder(fd, i);
		step();
		close(fd);
		step();
	}
	done();
}
