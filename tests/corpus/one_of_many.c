// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon with a dozen features, each of which watches a folder for a while from its own place in
 * the code. One of them, plugins, forgets to stop.
 *
 * The sum of the process tells that it leaks; only the place tells where.
 */
#include "corpus.h"

#define FEATURES(EACH)								\
	EACH(certs) EACH(hosts) EACH(keys) EACH(locale) EACH(mounts) EACH(plugins)\
	EACH(policy) EACH(routes) EACH(rules) EACH(tokens) EACH(units) EACH(zones)

#define DEFINE(feature)								\
	SITE int many_watch_##feature(int fd, int beat)				\
	{									\
		return watch(fd, folder(at(#feature "-%d", beat)));		\
	}

#define ENTRY(feature) { many_watch_##feature, #feature },

FEATURES(DEFINE)

static const struct {
	int (*watch)(int fd, int beat);
	const char *name;
} features[] = { FEATURES(ENTRY) };

#define COUNT ((int)(sizeof(features) / sizeof(*features)))

static void stop(int fd, int feature, int wd)
{
	/* the bug */
	if (!strcmp(features[feature].name, "plugins"))
		return;
	unwatch(fd, wd);
}

int main(int argc, char **argv)
{
	int fd, wds[COUNT];

	set_work(argc, argv);
	fd = instance();
	ready();
	for (int beat = 0; beat < BEATS; beat += 2) {
		for (int i = 0; i < COUNT; i++)
			wds[i] = features[i].watch(fd, beat);
		step();
		for (int i = 0; i < COUNT; i++)
			stop(fd, i, wds[i]);
		drain(fd);
		step();
	}
	done();
}
