// SPDX-License-Identifier: GPL-2.0
/*
 * containerd#10468: one instance for each container, by design, in one process. Containers come
 * and go, six at a time.
 *
 * New instances to the very end, and never more than there are containers.
 */
#include "corpus.h"

#define CONTAINERS	6

SITE int shim_open_events(void)
{
	return instance();
}

SITE void shim_watch_events(int fd, int container)
{
	watch(fd, touch(at("container-%d", container)));
}

int main(int argc, char **argv)
{
	int fds[CONTAINERS];

	set_work(argc, argv);
	ready();
	for (int container = 0; container < BEATS; container++) {
		/* after six, any of them goes before the next comes */
		int place = container < CONTAINERS ? container : roll(CONTAINERS);

		if (container >= CONTAINERS)
			close(fds[place]);
		fds[place] = shim_open_events();
		shim_watch_events(fds[place], container);
		step();
	}
	done();
}
