// SPDX-License-Identifier: GPL-2.0
/*
 * At each reload of its configuration a daemon opens a new instance with all its watches, and
 * closes the old one: what habitat#5416 should have done.
 *
 * One instance and three watches at any time, none of them old.
 */
#include "corpus.h"

#define FILES	3

SITE int config_new_watcher(void)
{
	return instance();
}

SITE void config_watch_file(int fd, int number)
{
	watch(fd, at("config-%d", number));
}

int main(int argc, char **argv)
{
	int fd = -1;

	set_work(argc, argv);
	for (int i = 0; i < FILES; i++)
		touch(at("config-%d", i));
	ready();
	for (int reload = 0; reload < BEATS / 2; reload++) {
		int old = fd;

		fd = config_new_watcher();
		for (int i = 0; i < FILES; i++)
			config_watch_file(fd, i);
		if (old >= 0)
			close(old);
		steps(2);
	}
	done();
}
