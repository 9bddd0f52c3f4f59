// SPDX-License-Identifier: GPL-2.0
/*
 * A job that watches ever more while it runs, and at its end closes its instance on purpose; then
 * it exits. It does not stay after "done".
 *
 * It grew all the time, and it cleaned up before the kernel had to.
 */
#include "corpus.h"

SITE int closer_new_watcher(void)
{
	return instance();
}

SITE void closer_watch_input(int fd, int number)
{
	watch(fd, folder(at("input-%d", number)));
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = closer_new_watcher();
	ready();
	for (int number = 0; number < BEATS; number++) {
		closer_watch_input(fd, number);
		step();
	}
	MUST(close(fd));
	say("done");
	return 0;
}
