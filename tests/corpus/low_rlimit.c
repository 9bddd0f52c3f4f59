// SPDX-License-Identifier: GPL-2.0
/*
 * argo-cd#13596: "too many open files" from inotify_init1(), and it has nothing to do with inotify:
 * the process may not open more descriptors, of any kind.
 *
 * One instance with two watches, flat.
 */
#include "corpus.h"

#define DESCRIPTORS	32

SITE int rlimit_new_watcher(void)
{
	return instance();
}

SITE void rlimit_watch_repo(int fd, int number)
{
	watch(fd, folder(at("repo-%d", number)));
}

SITE int rlimit_open_more(void)
{
	return inotify_init1(IN_CLOEXEC);
}

static void use_up_descriptors(void)
{
	struct rlimit limit = { DESCRIPTORS, DESCRIPTORS };

	MUST(setrlimit(RLIMIT_NOFILE, &limit));
	while (open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0)
		;
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = rlimit_new_watcher();
	for (int i = 0; i < 2; i++)
		rlimit_watch_repo(fd, i);
	use_up_descriptors();
	ready();
	for (int beat = 0; beat < BEATS; beat++) {
		if (rlimit_open_more() >= 0 || errno != EMFILE)
			_exit(1);
		step();
	}
	done();
}
