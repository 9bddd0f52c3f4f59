// SPDX-License-Identifier: GPL-2.0
/*
 * kubernetes#64315: each request to follow a log gets a thread that waits for the log to grow. The
 * client goes; the thread would see that only when it next writes, and the log is quiet for ever.
 *
 * One thread, instance and watch more with each request.
 */
#include "corpus.h"

SITE int follower_new_watcher(void)
{
	/* it blocks */
	return MUST(inotify_init1(IN_CLOEXEC));
}

SITE void follower_watch_log(int fd, const char *log)
{
	watch(fd, log);
}

static void *follow(void *argument)
{
	int number = (int)(long)argument, fd = follower_new_watcher();
	struct inotify_event event;

	follower_watch_log(fd, touch(at("container-%d.log", number)));
	/* the bug: waits for the log only, and not for the end of the client as well */
	if (read(fd, &event, sizeof(event)) > 0)
		close(fd);
	return NULL;
}

static void answer_request(int number)
{
	pthread_attr_t detached;
	pthread_t thread;

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &detached, follow, (void *)(long)number))
		_exit(1);
	pthread_attr_destroy(&detached);
}

int main(int argc, char **argv)
{
	set_work(argc, argv);
	ready();
	for (int number = 0; number < BEATS / 2; number++) {
		answer_request(number);
		steps(2);
	}
	done();
}
