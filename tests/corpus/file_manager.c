// SPDX-License-Identifier: GPL-2.0
/*
 * A file manager with up to eight tabs. By chance a tab is opened, goes to another folder, or is
 * closed; the folder of each is watched while it is shown.
 *
 * Busy to the end, and a few are open at any time.
 */
#include "corpus.h"

#define TABS	8
#define FOLDERS	100

SITE int manager_new_watcher(void)
{
	return instance();
}

SITE int manager_watch_folder(int fd, int number)
{
	return watch(fd, at("folder-%d", number));
}

static void leave(int fd, int *tab)
{
	if (*tab)
		unwatch(fd, *tab);
	*tab = 0;
}

int main(int argc, char **argv)
{
	int fd, next = 0, tabs[TABS] = { 0 };

	set_work(argc, argv);
	fd = manager_new_watcher();
	for (int i = 0; i < FOLDERS; i++)
		folder(at("folder-%d", i));
	ready();
	for (int turn = 0; turn < 3 * BEATS; turn++) {
		int *tab = &tabs[roll(TABS)];

		leave(fd, tab);
		/* no two tabs show the same folder */
		if (roll(2))
			*tab = manager_watch_folder(fd, next++ % FOLDERS);
		drain(fd);
		if (turn % 3 == 2)
			step();
	}
	done();
}
