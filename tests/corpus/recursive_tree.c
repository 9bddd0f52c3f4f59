// SPDX-License-Identifier: GPL-2.0
/*
 * notify#60: a tree is added with all below it, and removed without: the watch of its root goes,
 * those of its subfolders stay. Each time it is another tree.
 *
 * One place in the code, which removes as it goes; four of five stay.
 */
#include "corpus.h"

#define SUBFOLDERS	4

SITE int tree_new_watcher(void)
{
	return instance();
}

SITE int tree_add_folder(int fd, const char *path)
{
	return watch(fd, path);
}

static int add_recursively(int fd, int tree)
{
	int root = -1;

	/* the root comes first */
	for (int i = 0; i <= SUBFOLDERS; i++) {
		char *path = i ? at("tree-%d/%d", tree, i) : at("tree-%d", tree);
		int wd = tree_add_folder(fd, folder(path));

		if (!i)
			root = wd;
	}
	return root;
}

int main(int argc, char **argv)
{
	int fd, root;

	set_work(argc, argv);
	fd = tree_new_watcher();
	ready();
	for (int tree = 0; tree < BEATS / 2; tree++) {
		root = add_recursively(fd, tree);
		step();
		/* the bug */
		unwatch(fd, root);
		drain(fd);
		step();
	}
	done();
}
