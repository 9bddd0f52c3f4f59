// SPDX-License-Identifier: GPL-2.0
/*
 * A cache of forty places, of which one at a time is taken by chance: an empty one is filled, a
 * full one is emptied. It comes to about twenty entries, and goes up and down from there; any of
 * them may be old.
 *
 * Now and then it ends higher than it was for a while, and that is chance.
 */
#include "corpus.h"

#define PLACES		40
#define TURNS_A_BEAT	6

SITE int random_new_watcher(void)
{
	return instance();
}

SITE int random_watch_entry(int fd, int entry)
{
	return watch(fd, folder(at("entry-%d", entry)));
}

int main(int argc, char **argv)
{
	int fd, cache[PLACES] = { 0 };

	set_work(argc, argv);
	fd = random_new_watcher();
	ready();
	for (int turn = 0; turn < BEATS * TURNS_A_BEAT; turn++) {
		int place = roll(PLACES);

		if (cache[place]) {
			unwatch(fd, cache[place]);
			cache[place] = 0;
		} else {
			cache[place] = random_watch_entry(fd, turn);
		}
		if (turn % TURNS_A_BEAT == TURNS_A_BEAT - 1)
			step();
		drain(fd);
	}
	done();
}
