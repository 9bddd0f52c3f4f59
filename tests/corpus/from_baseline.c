// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon that had its watches before anybody traced, and does nothing since.
 *
 * They are known from the kernel's list only; nobody saw who added them, and nothing is wrong.
 * To be started before the trace.
 */
#include "corpus.h"

#define WATCHES	25

SITE int baseline_new_watcher(void)
{
	return instance();
}

SITE void baseline_watch_folder(int fd, int number)
{
	watch(fd, folder(at("folder-%d", number)));
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = baseline_new_watcher();
	for (int i = 0; i < WATCHES; i++)
		baseline_watch_folder(fd, i);
	ready();
	steps(BEATS);
	done();
}
