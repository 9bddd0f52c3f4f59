// SPDX-License-Identifier: GPL-2.0
/* puppet: what it can be told to do with inotify, alone, in whole workloads and within limits. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONFIGS		5
#define PODS		23
#define STATELESS_EVERY	4	/* leaves 17 of 23 with a volume */

/* a compiler that inlines these would take the names out of the stacks */
#define KEEP __attribute__((noinline, noclone))

static long checked(long result)
{
	return result < 0 ? -errno : result;
}

/* --- the calls, each from a function with a name to find in stacks --- */

static KEEP long open_instance(int flags)
{
	return checked(inotify_init1(flags));
}

static KEEP long add_watch(int fd, const char *target, unsigned int mask)
{
	return checked(inotify_add_watch(fd, target, mask));
}

static KEEP long remove_watch(int fd, int wd)
{
	return checked(inotify_rm_watch(fd, wd));
}

static KEEP long hold_config(int fd, const char *target)
{
	return checked(inotify_add_watch(fd, target, IN_MODIFY));
}

static KEEP long leak_secret(int fd, const char *target)
{
	return checked(inotify_add_watch(fd, target, IN_CREATE));
}

static KEEP long watch_volume(int fd, const char *target)
{
	return checked(inotify_add_watch(fd, target, IN_DELETE));
}

static KEEP long balance_volume(int fd, const char *target)
{
	long wd = watch_volume(fd, target);

	return wd < 0 ? wd : remove_watch(fd, wd);
}

/* --- whole workloads --- */

static const char *folder(const char *base, const char *kind, long i)
{
	static char made[PATH_MAX];

	snprintf(made, sizeof(made), "%s/%s-%ld", base, kind, i);
	if (mkdir(made, 0700))
		perror(made);
	return made;
}

/* 5 held, 17 balanced, 23 leaked, one a round */
static long churn(int fd, const char *base, long pace_us)
{
	for (long i = 0; i < CONFIGS; i++)
		hold_config(fd, folder(base, "config", i));
	for (long i = 0; i < PODS; i++) {
		if (i % STATELESS_EVERY)
			balance_volume(fd, folder(base, "volume", i));
		if (i)
			usleep(pace_us);
		leak_secret(fd, folder(base, "secret", i));
	}
	return CONFIGS + PODS;
}

static long leak_many(int fd, const char *base, long count)
{
	for (long i = 0; i < count; i++) {
		long wd = leak_secret(fd, folder(base, "many", i));

		if (wd < 0)
			return wd;
	}
	return count;
}

static long flood(int fd, const char *target, long count)
{
	for (long i = 0; i < count; i++) {
		long result = balance_volume(fd, target);

		if (result < 0)
			return result;
	}
	return count;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* every add on one CPU, every removal on another */
static long crossing(int fd, const char *target, long count, int adds_on, int removals_on)
{
	for (long i = 0; i < count; i++) {
		long wd;

		pin(adds_on);
		wd = watch_volume(fd, target);
		pin(removals_on);
		if (wd < 0 || remove_watch(fd, wd))
			return -errno;
	}
	return count;
}

/* each instance with one watch, closed with it: the kernel reuses the group's memory */
static long reopen(const char *target, long count)
{
	for (long i = 0; i < count; i++) {
		long fd = open_instance(IN_CLOEXEC), wd = leak_secret(fd, target);

		if (wd < 0)
			return wd;
		close(fd);
	}
	return count;
}

/* --- 32-bit calls --- */

#ifdef __x86_64__
static sigjmp_buf no_ia32;

static void on_fault(int signo)
{
	(void)signo;
	siglongjmp(no_ia32, 1);
}

static long call_32_bit(long number, long first, long second, long third)
{
	long result = number;

	signal(SIGSEGV, on_fault);
	if (sigsetjmp(no_ia32, 1))
		return -ENOSYS;
	asm volatile("int $0x80"
		     : "+a"(result)
		     : "b"(first), "c"(second), "d"(third)
		     : "memory", "cc", "r8", "r9", "r10", "r11");
	signal(SIGSEGV, SIG_DFL);
	return (int)result;
}
#else
static long call_32_bit(long number, long first, long second, long third)
{
	(void)number, (void)first, (void)second, (void)third;
	return -ENOSYS;
}
#endif

/* the numbers are those of i386 */
static long init_in_32_bit(void)
{
	return call_32_bit(332, 0, 0, 0);
}

static long remove_in_32_bit(long fd, long wd)
{
	return call_32_bit(293, fd, wd, 0);
}

static long add_in_32_bit(long fd, const char *target)
{
#ifdef MAP_32BIT
	char *low = mmap(NULL, PATH_MAX, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (low == MAP_FAILED)
		return -errno;
	strcpy(low, target);
	return call_32_bit(292, fd, (long)low, IN_CREATE);
#else
	(void)target;
	return call_32_bit(292, fd, 0, IN_CREATE);
#endif
}

/* --- limits --- */

/* in a user namespace of its own, so that nobody else meets the limit */
static long limit_inotify(const char *setting, const char *value)
{
	int fd, written;

	if (unshare(CLONE_NEWUSER))
		return -errno;
	fd = open(setting, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	written = write(fd, value, strlen(value));
	close(fd);
	return written < 0 ? -errno : 0;
}

static long limit_descriptors(rlim_t number)
{
	struct rlimit limit = { number, number };

	return checked(setrlimit(RLIMIT_NOFILE, &limit));
}

/* --- descriptors between processes --- */

static long send_fd(int socket, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	return checked(sendmsg(socket, &message, 0));
}

static long receive_fd(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	int fd;

	if (recvmsg(socket, &message, 0) < 0 || !CMSG_FIRSTHDR(&message))
		return -errno;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return fd;
}
