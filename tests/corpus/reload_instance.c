// SPDX-License-Identifier: GPL-2.0
/*
 * habitat#5416: each reload makes a new watcher with all its watches, on the same folders. The old
 * one stays open.
 *
 * An instance and five watches more with each reload; each folder is watched once more each time.
 */
#include "corpus.h"

#define FOLDERS	5

SITE int habitat_new_watcher(void)
{
	return instance();
}

SITE void habitat_watch_folder(int fd, int number)
{
	watch(fd, at("config-%d", number));
}

static void reload(void)
{
	/* the bug: the one before is forgotten */
	int fd = habitat_new_watcher();

	for (int i = 0; i < FOLDERS; i++)
		habitat_watch_folder(fd, i);
}

int main(int argc, char **argv)
{
	set_work(argc, argv);
	for (int i = 0; i < FOLDERS; i++)
		folder(at("config-%d", i));
	ready();
	for (int beat = 0; beat < BEATS; beat += 4) {
		reload();
		steps(4);
	}
	done();
}
