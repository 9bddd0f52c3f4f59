// SPDX-License-Identifier: GPL-2.0
/*
 * A master with four workers, each of which holds three watches from its start to its end. Now and
 * then one is done, and another comes in its place.
 *
 * More watches are freed by exits each time, and there are never more than four workers need. For
 * `inotrace run`.
 */
#include "corpus.h"

#define WORKERS		4
#define REPLACED	10
#define QUEUES		3

SITE int pool_new_watcher(void)
{
	return instance();
}

SITE void pool_watch_queue(int fd, int number)
{
	watch(fd, at("queue-%d", number));
}

static pid_t start_worker(void)
{
	pid_t worker = MUST(fork());
	int fd;

	if (worker)
		return worker;
	fd = pool_new_watcher();
	for (int i = 0; i < QUEUES; i++)
		pool_watch_queue(fd, i);
	stay();
}

int main(int argc, char **argv)
{
	pid_t workers[WORKERS];

	set_work(argc, argv);
	for (int i = 0; i < QUEUES; i++)
		folder(at("queue-%d", i));
	ready();
	for (int i = 0; i < WORKERS; i++)
		workers[i] = start_worker();
	for (int i = 0; i < REPLACED; i++) {
		int place = i % WORKERS;

		steps(BEATS / REPLACED);
		kill(workers[place], SIGTERM);
		waitpid(workers[place], NULL, 0);
		workers[place] = start_worker();
	}
	done();
}
