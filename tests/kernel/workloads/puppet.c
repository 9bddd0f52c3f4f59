// SPDX-License-Identifier: GPL-2.0
/*
 * puppet: does what the test says, one command a line on stdin, and answers each with one line
 * on stdout: the result, or a negative errno.
 *
 * Commands that take over the conversation (fork, orphan, table) nest: the newcomer reads on
 * until "exit" or "end", then the one before goes on. Paths are written in hexadecimal.
 */
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

#define LINE_MAX_BYTES	(2 * PATH_MAX + 256)
#define WORDS_MAX	8
#define CONFIGS		5
#define PODS		23
#define STATELESS_EVERY	4	/* leaves 17 of 23 with a volume */

/* a compiler that inlines these would take the names out of the stacks */
#define KEEP __attribute__((noinline, noclone))

struct words {
	int count;
	char *at[WORDS_MAX];
};

static const char *program;
static volatile sig_atomic_t interrupts;
static sigjmp_buf no_ia32;

static long run(struct words *w);

static long number(const struct words *w, int i)
{
	return i < w->count ? strtol(w->at[i], NULL, 0) : 0;
}

/* decodes in place */
static char *path(struct words *w, int i)
{
	char *hex = w->at[i], *out = hex;
	unsigned int byte;

	for (char *in = hex; sscanf(in, "%2x", &byte) == 1; in += 2)
		*out++ = byte;
	*out = 0;
	return hex;
}

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

static void on_fault(int signo)
{
	(void)signo;
	siglongjmp(no_ia32, 1);
}

#ifdef __x86_64__
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

/* --- the conversation --- */

/* unbuffered, since several processes read from one pipe in turn */
static int read_line(char *line, size_t size)
{
	size_t used = 0;
	ssize_t got;

	while (used < size - 1) {
		got = read(0, line + used, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return 0;
		if (line[used] == '\n')
			break;
		used++;
	}
	line[used] = 0;
	return 1;
}

static void answer(long result)
{
	char text[32];
	int size = snprintf(text, sizeof(text), "%ld\n", result);

	if (write(1, text, size) != size)
		_exit(99);
}

static struct words split(char *line)
{
	struct words w = { 0 };
	char *rest = line;

	while (w.count < WORDS_MAX && (w.at[w.count] = strtok_r(rest, " ", &rest)))
		w.count++;
	return w;
}

/* until "end", or for good */
static void converse(void)
{
	char *line = malloc(LINE_MAX_BYTES);

	while (read_line(line, LINE_MAX_BYTES)) {
		struct words w = split(line);

		if (!w.count)
			continue;
		if (!strcmp(w.at[0], "end")) {
			free(line);
			return;
		}
		answer(run(&w));
	}
	_exit(98);
}

static void *in_thread(void *argument)
{
	struct words *w = argument;

	return (void *)run(w);
}

static void *with_own_table(void *argument)
{
	(void)argument;
	answer(unshare(CLONE_FILES) ? -errno : syscall(SYS_gettid));
	converse();
	return NULL;
}

/* the newcomer answers with its pid; what it says at its end is the answer of the call */
static long fork_and_converse(void)
{
	int status;
	pid_t child = fork();

	if (!child) {
		answer(getpid());
		converse();
		_exit(0);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static long orphan_and_converse(void)
{
	if (fork())
		_exit(0);
	setsid();
	return getpid();
}

static void on_interrupt(int signo)
{
	(void)signo;
	interrupts++;
}

static long await_interrupts(long wanted)
{
	sigset_t blocked, before;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGINT);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	while (interrupts < wanted)
		sigsuspend(&before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return interrupts;
}

static long run_control(struct words *w)
{
	const char *name = w->at[0];
	pthread_t thread;
	void *result;

	if (!strcmp(name, "thread")) {
		struct words rest = { .count = w->count - 1 };

		memcpy(rest.at, w->at + 1, rest.count * sizeof(*rest.at));
		pthread_create(&thread, NULL, in_thread, &rest);
		pthread_join(thread, &result);
		return (long)result;
	}
	if (!strcmp(name, "table")) {
		pthread_create(&thread, NULL, with_own_table, NULL);
		pthread_join(thread, NULL);
		return 0;
	}
	if (!strcmp(name, "fork"))
		return fork_and_converse();
	if (!strcmp(name, "orphan"))
		return orphan_and_converse();
	if (!strcmp(name, "exec")) {
		execl(program, program, "again", NULL);
		return -errno;
	}
	if (!strcmp(name, "exit"))
		_exit(number(w, 1));
	if (!strcmp(name, "raise"))
		return raise(number(w, 1));
	if (!strcmp(name, "comm"))
		return checked(prctl(PR_SET_NAME, path(w, 1)));
	if (!strcmp(name, "count-interrupts"))
		return signal(SIGINT, on_interrupt) == SIG_ERR ? -errno : 0;
	if (!strcmp(name, "await-interrupts"))
		return await_interrupts(number(w, 1));
	if (!strcmp(name, "become"))
		return checked(setgid(number(w, 1)) || setuid(number(w, 1)) ? -1 : 0);
	if (!strcmp(name, "pid"))
		return getpid();
	return -ENOTSUP;
}

static long run(struct words *w)
{
	const char *name = w->at[0];
	int pair[2];
	long result;

	if (!strcmp(name, "init"))
		return open_instance(w->count > 1 ? number(w, 1) : IN_CLOEXEC);
	if (!strcmp(name, "old-init"))
		return checked(inotify_init());
	if (!strcmp(name, "add"))
		return add_watch(number(w, 1), path(w, 2),
				 w->count > 3 ? number(w, 3) : IN_CREATE);
	if (!strcmp(name, "rm"))
		return remove_watch(number(w, 1), number(w, 2));
	if (!strcmp(name, "hold"))
		return hold_config(number(w, 1), path(w, 2));
	if (!strcmp(name, "leak"))
		return leak_secret(number(w, 1), path(w, 2));
	if (!strcmp(name, "balance"))
		return balance_volume(number(w, 1), path(w, 2));
	if (!strcmp(name, "churn"))
		return churn(number(w, 1), path(w, 2), number(w, 3));
	if (!strcmp(name, "churn-exit")) {
		result = churn(number(w, 1), path(w, 2), number(w, 3));
		_exit(result == CONFIGS + PODS ? number(w, 4) : 97);
	}
	if (!strcmp(name, "many"))
		return leak_many(number(w, 1), path(w, 2), number(w, 3));
	if (!strcmp(name, "flood"))
		return flood(number(w, 1), path(w, 2), number(w, 3));
	if (!strcmp(name, "crossing"))
		return crossing(number(w, 1), path(w, 2), number(w, 3), number(w, 4),
				number(w, 5));
	if (!strcmp(name, "reopen"))
		return reopen(path(w, 1), number(w, 2));
	if (!strcmp(name, "add32"))
		return add_in_32_bit(number(w, 1), path(w, 2));
	if (!strcmp(name, "rm32"))
		return remove_in_32_bit(number(w, 1), number(w, 2));
	if (!strcmp(name, "init32"))
		return init_in_32_bit();
	if (!strcmp(name, "limit-watches"))
		return limit_inotify("/proc/sys/user/max_inotify_watches", w->at[1]);
	if (!strcmp(name, "limit-instances"))
		return limit_inotify("/proc/sys/user/max_inotify_instances", w->at[1]);
	if (!strcmp(name, "limit-descriptors"))
		return limit_descriptors(number(w, 1));
	if (!strcmp(name, "open"))
		return checked(open(path(w, 1), O_RDONLY | O_CLOEXEC));
	if (!strcmp(name, "close"))
		return checked(close(number(w, 1)));
	if (!strcmp(name, "dup"))
		return checked(dup(number(w, 1)));
	if (!strcmp(name, "socketpair"))
		/* the two numbers in one answer */
		return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? -errno
								 : pair[0] * 1000 + pair[1];
	if (!strcmp(name, "send"))
		return send_fd(number(w, 1), number(w, 2));
	if (!strcmp(name, "receive"))
		return receive_fd(number(w, 1));
	return run_control(w);
}

int main(int argc, char **argv)
{
	program = argv[0];
	/* after an exec, the new image answers for it */
	if (argc > 1 && !strcmp(argv[1], "again"))
		answer(0);
	else
		answer(getpid());
	converse();
	return 0;
}
