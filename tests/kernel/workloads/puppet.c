// SPDX-License-Identifier: GPL-2.0
/*
 * puppet: does what the test says, one command a line on stdin, and answers each with one line
 * on stdout: the result, or a negative errno.
 *
 * Commands that take over the conversation (fork, orphan, table) nest: the newcomer reads on
 * until "exit" or "end", then the one before goes on. Paths are written in hexadecimal.
 */
#include "puppet_operations.h"

#define LINE_MAX_BYTES	(2 * PATH_MAX + 256)
#define WORDS_MAX	8

struct words {
	int count;
	char *at[WORDS_MAX];
};

static const char *program;
static volatile sig_atomic_t interrupts;

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
	pid_t parent = getpid();

	if (fork())
		_exit(0);
	/* only then is all closed that it held: exit_notify() comes after exit_files() */
	while (getppid() == parent)
		sched_yield();
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
	if (!strcmp(name, "effective"))
		return checked(seteuid(number(w, 1)));
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
