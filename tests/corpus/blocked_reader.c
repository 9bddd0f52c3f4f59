// SPDX-License-Identifier: GPL-2.0
/*
 * kubernetes#94583: the thread that reads the events waits for a lock that is never released,
 * while files in the watched folders go on to change.
 *
 * The three watches are few and flat. What grows is the queue of the instance: nobody reads it.
 */
#include "corpus.h"

#define FOLDERS		3
#define FILES_A_BEAT	10

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int fd;

SITE void blocked_new_watcher(void)
{
	fd = instance();
}

SITE void blocked_watch_folder(int number)
{
	watch(fd, folder(at("folder-%d", number)));
}

static void *consume(void *unused)
{
	(void)unused;
	drain(fd);
	/* the bug */
	pthread_mutex_lock(&lock);
	drain(fd);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t consumer;

	set_work(argc, argv);
	blocked_new_watcher();
	for (int i = 0; i < FOLDERS; i++)
		blocked_watch_folder(i);
	pthread_mutex_lock(&lock);
	pthread_create(&consumer, NULL, consume, NULL);
	ready();
	for (int beat = 0; beat < BEATS; beat++) {
		for (int i = 0; i < FILES_A_BEAT; i++)
			touch(at("folder-%d/file-%d", i % FOLDERS, i));
		step();
	}
	done();
}
