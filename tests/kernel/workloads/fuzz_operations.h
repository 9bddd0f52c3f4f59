// SPDX-License-Identifier: GPL-2.0
/* fuzz: what may happen to instances, watches and what is watched. */

/* --- instances and watches --- */

static void do_init(struct worker *w)
{
	int flags = below(w, 2) ? IN_CLOEXEC : 0;
	int fd = below(w, 3) ? inotify_init1(IN_NONBLOCK | flags) : inotify_init();

	if (fd < 0)
		return;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	dup3(fd, some_instance(w), flags);
	close(fd);
}

static void do_add(struct worker *w)
{
	static const uint32_t masks[] = {
		IN_ALL_EVENTS, IN_CREATE, IN_CREATE | IN_DELETE, IN_MODIFY | IN_ONESHOT,
		IN_ALL_EVENTS | IN_ONESHOT, IN_OPEN | IN_MASK_ADD, IN_ATTRIB | IN_MASK_CREATE,
		IN_CREATE | IN_ONLYDIR, IN_DELETE | IN_EXCL_UNLINK, 0,
	};
	uint32_t mask = masks[below(w, sizeof(masks) / sizeof(*masks))];
	int fd = some_instance(w), wd;
	char path[512];

	wd = inotify_add_watch(fd, some_path(w, path), mask);
	if (wd < 0)
		return;
	w->wds[fd - FIRST_INSTANCE] = wd;
	atomic_fetch_add(&shared->adds, 1);
}

static void do_remove(struct worker *w)
{
	int fd = some_instance(w);
	int wd = w->wds[fd - FIRST_INSTANCE] + 1 - (int)below(w, 5);

	if (!inotify_rm_watch(fd, wd))
		atomic_fetch_add(&shared->removals, 1);
}

static void do_read(struct worker *w)
{
	char events[1024];

	if (read(some_instance(w), events, sizeof(events)) < 0)
		return;
}

static void do_dup(struct worker *w)
{
	int from = some_instance(w), to = some_instance(w);

	if (from != to)
		dup3(from, to, below(w, 2) ? O_CLOEXEC : 0);
}

static void do_close(struct worker *w)
{
	close(some_instance(w));
}

/* --- what is watched --- */

static void do_make(struct worker *w)
{
	char path[512];

	mkdir(some_path(w, path), 0700);
}

static void do_delete(struct worker *w)
{
	char path[512];

	if (rmdir(some_path(w, path)))
		unlink(path);
}

static void do_touch(struct worker *w)
{
	char path[512];
	int fd = open(some_path(w, path), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return;
	if (write(fd, "x", 1) == 1)
		fchmod(fd, 0644);
	close(fd);
}

static void do_rename(struct worker *w)
{
	char from[512], to[512];

	rename(some_path(w, from), some_path(w, to));
}

static void do_link(struct worker *w)
{
	char from[512], to[512];

	if (link(some_path(w, from), some_path(w, to)))
		return;
}

static void do_hold(struct worker *w)
{
	char path[512];
	int fd = open(some_path(w, path), O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	dup3(fd, FIRST_FILE + below(w, FILES), O_CLOEXEC);
	close(fd);
}

static void do_release(struct worker *w)
{
	close(FIRST_FILE + below(w, FILES));
}

static void do_mount(struct worker *w)
{
	int which = below(w, MOUNTS), not_yet = 0;
	char path[512];

	if (!atomic_compare_exchange_strong(&shared->mounted[which], &not_yet, 1))
		return;
	snprintf(path, sizeof(path), "%s/m%d", folder, which);
	if (mount("fuzz", path, "tmpfs", 0, "size=1m"))
		atomic_store(&shared->mounted[which], 0);
}

static void do_unmount(struct worker *w)
{
	int which = below(w, MOUNTS);
	char path[512];

	snprintf(path, sizeof(path), "%s/m%d", folder, which);
	if (!umount2(path, below(w, 3) ? MNT_DETACH : 0))
		atomic_store(&shared->mounted[which], 0);
}

/* --- from process to process --- */

static void do_send(struct worker *w)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int fd = some_instance(w);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	if (sendmsg(SENDING_FD, &message, MSG_DONTWAIT) == 1 && below(w, 2))
		close(fd);
}

static int received(void)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd = -1;

	if (recvmsg(RECEIVING_FD, &message, MSG_DONTWAIT) == 1 && CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return fd;
}

static void do_receive(struct worker *w)
{
	int fd = received();

	if (fd < 0)
		return;
	dup3(fd, some_instance(w), 0);
	close(fd);
}
