// SPDX-License-Identifier: GPL-2.0
/*
 * finit#417: one watch more with each reload, on an instance that a forked child holds as well.
 *
 * The site has as many watches as there were reloads; the descriptor of the child adds none.
 */
#include "corpus.h"

SITE int finit_open(void)
{
	return instance();
}

SITE void finit_watch_conf(int fd, int reload)
{
	/* the bug: the one of the last reload is not removed */
	watch(fd, folder(at("finit-%d.d", reload)));
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = finit_open();
	ready();
	if (!MUST(fork()))
		stay();
	for (int reload = 0; reload < BEATS / 2; reload++) {
		finit_watch_conf(fd, reload);
		steps(2);
		drain(fd);
	}
	done();
}
