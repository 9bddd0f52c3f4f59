// SPDX-License-Identifier: GPL-2.0
/*
 * kubernetes#10421: a node agent watches the volume, the configuration and the secret of each pod.
 * When a pod goes, the first two are given up; the secret is not.
 *
 * One watch more with each pod, from kubelet_watch_secret alone. The other places are balanced.
 */
#include "corpus.h"

struct pod {
	int volume, config;
};

SITE int kubelet_new_watcher(void)
{
	return instance();
}

SITE int kubelet_watch_volume(int fd, int pod)
{
	return watch(fd, folder(at("volume-%d", pod)));
}

SITE int kubelet_watch_config(int fd, int pod)
{
	return watch(fd, folder(at("config-%d", pod)));
}

SITE void kubelet_watch_secret(int fd, int pod)
{
	/* the bug: nobody keeps the descriptor */
	watch(fd, folder(at("secret-%d", pod)));
}

static struct pod create_pod(int fd, int number)
{
	struct pod pod;

	pod.volume = kubelet_watch_volume(fd, number);
	pod.config = kubelet_watch_config(fd, number);
	kubelet_watch_secret(fd, number);
	return pod;
}

static void delete_pod(int fd, struct pod pod, int number)
{
	unwatch(fd, pod.volume);
	unwatch(fd, pod.config);
	rmdir(at("volume-%d", number));
	rmdir(at("config-%d", number));
}

int main(int argc, char **argv)
{
	int fd;

	set_work(argc, argv);
	fd = kubelet_new_watcher();
	ready();
	for (int number = 0; number < BEATS / 2; number++) {
		struct pod pod = create_pod(fd, number);

		step();
		delete_pod(fd, pod, number);
		drain(fd);
		step();
	}
	done();
}
