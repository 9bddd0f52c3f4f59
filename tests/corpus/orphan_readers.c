// SPDX-License-Identifier: GPL-2.0
/*
 * cadvisor#1725: a supervisor calls a helper every few seconds. The helper starts a journal reader
 * with four instances, and ends without it.
 *
 * Each reader by itself is flat, and is young. There are more of them each time, and their parents
 * are gone.
 */
#include "corpus.h"

#define HELPERS		8
#define INSTANCES	4

SITE int orphan_open_journal(void)
{
	return instance();
}

SITE void orphan_watch_journal(int fd, const char *journal)
{
	watch(fd, journal);
}

static __attribute__((noreturn)) void read_journals(void)
{
	for (int i = 0; i < INSTANCES; i++)
		orphan_watch_journal(orphan_open_journal(), at("journal-%d", i));
	stay();
}

static __attribute__((noreturn)) void help(void)
{
	if (!MUST(fork())) {
		prctl(PR_SET_NAME, "orphan_reader");
		read_journals();
	}
	/* the bug: the reader is left to nobody */
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t helper;

	/* nothing that a terminal sends reaches the readers */
	setsid();
	set_work(argc, argv);
	for (int i = 0; i < INSTANCES; i++)
		folder(at("journal-%d", i));
	ready();
	for (int i = 0; i < HELPERS; i++) {
		helper = MUST(fork());
		if (!helper)
			help();
		waitpid(helper, NULL, 0);
		steps(BEATS / HELPERS);
	}
	done();
}
