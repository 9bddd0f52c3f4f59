// SPDX-License-Identifier: GPL-2.0
/*
 * A master runs one worker after the other. Each watches one job after the other over its life,
 * gives none of them up, and is replaced after eight: the exit is all that frees them.
 *
 * No worker lives to grow large, and in the end none is there. For `inotrace run`.
 */
#include "corpus.h"

#define WORKERS	5
#define JOBS	8

SITE int worker_new_watcher(void)
{
	return instance();
}

SITE void worker_watch_job(int fd, int worker, int job)
{
	/* the bug: done with the job, not with the watch */
	watch(fd, folder(at("job-%d-%d", worker, job)));
}

static __attribute__((noreturn)) void run_worker(int worker)
{
	int fd = worker_new_watcher();

	for (int job = 0; job < JOBS; job++) {
		worker_watch_job(fd, worker, job);
		step();
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	set_work(argc, argv);
	ready();
	for (int worker = 0; worker < WORKERS; worker++) {
		pid_t child = MUST(fork());

		if (!child)
			run_worker(worker);
		waitpid(child, NULL, 0);
	}
	done();
}
