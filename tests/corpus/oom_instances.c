// SPDX-License-Identifier: GPL-2.0
/*
 * containerd#5670: one daemon opens an instance for the memory events of a container each time the
 * container is restarted. The folder of the stopped one goes, and its watch with it; the instance
 * stays.
 *
 * Instances leak, one with each restart, and hold no watch: "too many open files" comes first.
 */
#include "corpus.h"

SITE int oom_open_events(void)
{
	return instance();
}

SITE void oom_watch_events(int fd, int run)
{
	watch(fd, folder(at("container-%d", run)));
}

static void start_container(int run)
{
	/* the bug: known to nobody from here on */
	int fd = oom_open_events();

	oom_watch_events(fd, run);
}

int main(int argc, char **argv)
{
	set_work(argc, argv);
	ready();
	for (int run = 0; run < BEATS / 2; run++) {
		start_container(run);
		steps(2);
		/* the kernel removes the watch of a folder that is removed */
		rmdir(at("container-%d", run));
	}
	done();
}
