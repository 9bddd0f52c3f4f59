// SPDX-License-Identifier: GPL-2.0
/*
 * watchdog#66: unschedule() takes a handler out of the list of the observer, and leaves the watch
 * in the kernel. What is looked at without an observer is given up.
 *
 * One watch more with each handler that came and went.
 */
#include "corpus.h"

static int handlers;

SITE int observer_new_watcher(void)
{
	return instance();
}

SITE void observer_schedule(int fd, int number)
{
	watch(fd, folder(at("scheduled-%d", number)));
	handlers++;
}

static void unschedule(void)
{
	/* the bug */
	handlers--;
}

SITE int observer_look(int fd, int number)
{
	return watch(fd, at("scheduled-%d", number));
}

int main(int argc, char **argv)
{
	int fd, other, wd;

	set_work(argc, argv);
	fd = observer_new_watcher();
	other = instance();
	ready();
	for (int number = 0; number < BEATS / 2; number++) {
		observer_schedule(fd, number);
		wd = observer_look(other, number);
		step();
		unwatch(other, wd);
		drain(other);
		unschedule();
		drain(fd);
		step();
	}
	done();
}
