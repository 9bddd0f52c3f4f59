// SPDX-License-Identifier: GPL-2.0
/*
 * viper#2038, higress#236: each configuration that is read gets a watcher of its own, which is
 * neither kept nor closed.
 *
 * One instance with one watch more with each call, each on another file.
 */
#include "corpus.h"

SITE int viper_new_watcher(void)
{
	return instance();
}

SITE void viper_watch_config(int fd, const char *config)
{
	watch(fd, config);
}

static void read_config(int number)
{
	const char *config = touch(at("config-%d.yaml", number));
	/* the bug: lost when this returns */
	int fd = viper_new_watcher();

	viper_watch_config(fd, config);
}

int main(int argc, char **argv)
{
	set_work(argc, argv);
	ready();
	for (int number = 0; number < BEATS / 2; number++) {
		read_config(number);
		steps(2);
	}
	done();
}
