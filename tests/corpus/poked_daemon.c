// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon that forgets one watch each time it is poked with SIGUSR1, and writes "poked" after
 * it. The first poke fills a cache with one watch more. Beside that it works all the time, and
 * cleans up. It does not write "done".
 *
 * Round after round of pokes: +1 in each from poked_watch_session. What the first round alone
 * brings, poked_warm_cache, is no leak.
 */
#include "corpus.h"

SITE int poked_watch_session(int fd, int poke)
{
	/* the bug: the session ends, and its watch does not */
	return watch(fd, folder(at("session-%d", poke)));
}

SITE void poked_warm_cache(int fd)
{
	watch(fd, folder(at("cache")));
}

SITE int poked_watch_request(int fd, const char *path)
{
	return watch(fd, path);
}

SITE void poked_watch_config(int fd)
{
	watch(fd, folder(at("config")));
}

static int block_pokes(void)
{
	sigset_t pokes;

	sigemptyset(&pokes);
	sigaddset(&pokes, SIGUSR1);
	sigprocmask(SIG_BLOCK, &pokes, NULL);
	return MUST(signalfd(-1, &pokes, SFD_CLOEXEC | SFD_NONBLOCK));
}

/* within a beat */
static int is_poked(int pokes)
{
	struct signalfd_siginfo poke;
	struct pollfd news[] = { { .fd = STDIN_FILENO, .events = POLLIN },
				 { .fd = pokes, .events = POLLIN } };

	poll(news, 2, beat_ms);
	if (news[0].revents)
		_exit(0);
	return read(pokes, &poke, sizeof(poke)) == sizeof(poke);
}

int main(int argc, char **argv)
{
	const char *request;
	int fd, pokes, poke = 0;

	set_work(argc, argv);
	pokes = block_pokes();
	request = strdup(folder(at("request")));
	fd = instance();
	poked_watch_config(fd);
	ready();
	for (;;) {
		int wd = poked_watch_request(fd, request);

		if (is_poked(pokes)) {
			poked_watch_session(fd, poke);
			if (!poke++)
				poked_warm_cache(fd);
			say("poked");
		}
		unwatch(fd, wd);
		drain(fd);
	}
}
