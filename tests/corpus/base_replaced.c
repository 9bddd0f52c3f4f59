// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon that has thirty watches from before the trace reloads: it closes its instance and makes
 * a new one with the same thirty.
 *
 * All of them were added within the trace and none removed; and there are as many as there were
 * before. To be started before the trace.
 */
#include "corpus.h"

#define UNITS	30

SITE int replaced_new_watcher(void)
{
	return instance();
}

SITE void replaced_watch_unit(int fd, int number)
{
	watch(fd, at("unit-%d", number));
}

static int load_units(void)
{
	int fd = replaced_new_watcher();

	for (int i = 0; i < UNITS; i++)
		replaced_watch_unit(fd, i);
	return fd;
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	for (int i = 0; i < UNITS; i++)
		folder(at("unit-%d", i));
	fd = load_units();
	ready();
	steps(BEATS / 2);
	close(fd);
	load_units();
	steps(BEATS / 2);
	done();
}
