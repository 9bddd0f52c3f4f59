// SPDX-License-Identifier: GPL-2.0
/*
 * A place that adds and removes all the time, and forgets one in a hundred: a way out of a function
 * that is rarely taken.
 *
 * Twenty watches stay of two thousand.
 */
#include "corpus.h"

#define PAIRS	100

SITE int slow_new_watcher(void)
{
	return instance();
}

SITE int slow_watch_item(int fd, const char *path)
{
	return watch(fd, path);
}

static void work_on(int fd, const char *path, int rare)
{
	int wd = slow_watch_item(fd, path);

	/* the bug */
	if (rare)
		return;
	unwatch(fd, wd);
}

int main(int argc, char **argv)
{
	const char *common;
	int fd;

	set_work(argc, argv);
	common = strdup(folder(at("common")));
	fd = slow_new_watcher();
	ready();
	for (int round = 0; round < BEATS / 2; round++) {
		for (int i = 0; i <= PAIRS; i++) {
			int rare = i == PAIRS / 2;

			work_on(fd, rare ? folder(at("rare-%d", round)) : common, rare);
		}
		drain(fd);
		steps(2);
	}
	done();
}
