// SPDX-License-Identifier: GPL-2.0
/*
 * vscode#327108: an editor opens a folder, watches all below it, and closes it. The watches stay;
 * those of the settings, beside it, are given up.
 *
 * Eight watches more with each folder that was opened, on one instance.
 */
#include "corpus.h"

#define SUBFOLDERS	8

SITE int editor_new_watcher(void)
{
	return instance();
}

SITE void editor_watch_folder(int fd, int tree, int number)
{
	watch(fd, folder(at("tree-%d/folder-%d", tree, number)));
}

SITE int editor_watch_settings(int fd, int tree)
{
	return watch(fd, folder(at("tree-%d/settings", tree)));
}

static int show_tree(int fd, int tree)
{
	folder(at("tree-%d", tree));
	for (int i = 0; i < SUBFOLDERS; i++)
		editor_watch_folder(fd, tree, i);
	return editor_watch_settings(fd, tree);
}

int main(int argc, char **argv)
{
	int fd, settings;

	set_work(argc, argv);
	fd = editor_new_watcher();
	ready();
	for (int tree = 0; tree < BEATS / 4; tree++) {
		settings = show_tree(fd, tree);
		steps(2);
		/* the bug: the folders are not closed */
		unwatch(fd, settings);
		steps(2);
		drain(fd);
	}
	done();
}
