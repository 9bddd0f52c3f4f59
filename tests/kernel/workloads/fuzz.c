// SPDX-License-Identifier: GPL-2.0
/*
 * fuzz: does everything that changes inotify watches, at random, in several processes.
 *
 *	fuzz FOLDER PROCESSES THREADS
 *
 * A line "SEED OPERATIONS" on stdin starts a round. When all processes have stopped, alive and
 * holding what they hold, the answer is a line "ADDS REMOVALS" with how many of these calls
 * succeeded so far. Both are exact only without threads: with THREADS 1, each process has one
 * thread that shares its descriptors, and at times one that does not. All end with stdin.
 *
 * What each process does follows from the seed; how they meet does not.
 */
#include "fuzz_shared.h"
#include "fuzz_operations.h"

static void be_process(uint32_t left);

/* --- processes and threads --- */

/* a place for one more process, or -1 */
static int claim(uint32_t number)
{
	for (int i = 0; i < shared->processes; i++) {
		uint64_t from = atomic_load(&shared->places[i].state);

		if ((uint32_t)from == FREE &&
		    atomic_compare_exchange_strong(&shared->places[i].state, &from,
						   word(number, CLAIMED)))
			return i;
	}
	return -1;
}

/* with so many instances more than it inherits */
static void start_process(int at, uint32_t number, uint32_t left, uint32_t fresh)
{
	uint64_t claimed = word(number, CLAIMED);
	pid_t child;

	if (at < 0)
		return;
	/* whoever claimed it may be killed before the fork: then it is given back */
	atomic_store(&shared->places[at].pid, -getpid());
	child = fork();
	if (child > 0)
		return;
	if (child < 0) {
		atomic_store(&shared->places[at].state, word(number, FREE));
		return;
	}
	if (!atomic_compare_exchange_strong(&shared->places[at].state, &claimed,
					    word(number, RUNNING)))
		_exit(0);
	own = at;
	atomic_store(&shared->places[at].pid, getpid());
	/* the end of the conversation is that of the first process */
	dup2(2, 0);
	dup2(2, 1);
	while (fresh--)
		do_init(&(struct worker){ .random = seeded(30 + at) + fresh });
	be_process(left);
}

static void do_fork(struct worker *w)
{
	uint32_t number = atomic_fetch_add(&shared->claims, 1) + 1;

	start_process(claim(number), number, w->left, 0);
}

static void do_exit(struct worker *w)
{
	(void)w;
	become(EXITING);
	_exit(0);
}

static void do_exec(struct worker *w)
{
	char at[16], left[16];

	snprintf(at, sizeof(at), "%d", own);
	snprintf(left, sizeof(left), "%u", w->left);
	execl(program, program, folder, "again", at, left, NULL);
}

static void do_wander(struct worker *w)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(below(w, sysconf(_SC_NPROCESSORS_ONLN)), &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static const struct {
	int weight;
	void (*run)(struct worker *);
} operations[] = {
	{ 30, do_init }, { 350, do_add }, { 150, do_remove }, { 30, do_read },
	{ 15, do_dup }, { 10, do_close }, { 110, do_make }, { 45, do_delete },
	{ 100, do_touch }, { 30, do_rename }, { 30, do_link }, { 15, do_hold },
	{ 15, do_release }, { 2, do_mount }, { 2, do_unmount }, { 20, do_send },
	{ 29, do_receive }, { 5, do_fork }, { 2, do_exit }, { 3, do_exec },
	{ 7, do_wander },
};

static void work(struct worker *w)
{
	while (w->left--) {
		int at = below(w, 1000), i = 0;

		while (at >= operations[i].weight)
			at -= operations[i++].weight;
		operations[i].run(w);
	}
}

static void *in_thread(void *argument)
{
	struct worker w = { .left = (uintptr_t)argument };

	w.random = seeded(10 + own) + w.left;
	work(&w);
	return NULL;
}

static void *in_thread_apart(void *argument)
{
	struct worker w = { .left = (uintptr_t)argument };

	if (unshare(CLONE_FILES))
		die("unshare");
	atomic_store(&apart_tid, syscall(SYS_gettid));
	while (!atomic_load(&apart_ends)) {
		uint32_t round = atomic_load(&shared->round);

		w.random = seeded(20 + own) + w.left;
		work(&w);
		atomic_store(&apart_stopped, round);
		await_change(&shared->round, round);
		w.left = shared->operations / 2;
	}
	return NULL;
}

/* joining waits for less than the end: the descriptors are closed a moment later */
static void end_thread_apart(void)
{
	char task[64];

	snprintf(task, sizeof(task), "/proc/self/task/%d", atomic_load(&apart_tid));
	pthread_join(apart, NULL);
	while (!access(task, F_OK))
		nap();
	atomic_store(&apart_tid, 0);
	atomic_store(&apart_ends, 0);
}

static void begin_threads(pthread_t *beside, uint32_t left)
{
	pthread_create(beside, NULL, in_thread, (void *)(uintptr_t)left);
	if (atomic_load(&apart_tid) && atomic_load(&apart_ends))
		end_thread_apart();
	if (!atomic_load(&apart_tid) && shared->seed % 3 == 0) {
		/* until it has a number of its own */
		atomic_store(&apart_tid, -1);
		pthread_create(&apart, NULL, in_thread_apart, (void *)(uintptr_t)left);
	}
}

static void end_threads(pthread_t beside, uint32_t round)
{
	pthread_join(beside, NULL);
	while (atomic_load(&apart_tid) && atomic_load(&apart_stopped) != round)
		nap();
	/* in some rounds to come it finds that it is over */
	if (atomic_load(&apart_tid) && shared->seed % 5 == 0)
		atomic_store(&apart_ends, 1);
}

/* what a process does from now on, `left` of this round */
static void be_process(uint32_t left)
{
	struct worker w = { 0 };
	pthread_t beside;

	atomic_store(&apart_tid, 0);
	atomic_store(&apart_ends, 0);
	atomic_store(&apart_stopped, 0);
	for (;;) {
		uint32_t round = atomic_load(&shared->round);

		w.random = seeded(own) + left;
		w.left = left;
		/* less with each exec, or it might go on for ever */
		if (left && shared->threads)
			begin_threads(&beside, left / 2);
		work(&w);
		if (left && shared->threads)
			end_threads(beside, round);
		become(STOPPED);
		await_change(&shared->round, round);
		left = shared->operations;
	}
}

/* --- the first process --- */

static int has_ended(const struct place *place, enum state state)
{
	int pid = atomic_load(&place->pid);

	if (state == CLAIMED)
		pid = -pid;
	/* it left at once, since nobody waits for it; its number may be another's by now */
	return pid > 0 && getpgid(pid) != shared->first_pid;
}

/* until each process is so or has ended; how many are */
static int await_all(enum state wanted)
{
	long naps = 0;
	int there = 0;

	for (int i = 0; i < shared->processes; i++) {
		struct place *place = &shared->places[i];
		uint64_t now = atomic_load(&place->state);

		if ((uint32_t)now == FREE)
			continue;
		if ((uint32_t)now == wanted) {
			there++;
			continue;
		}
		if (has_ended(place, now) && atomic_load(&place->state) == now) {
			if ((uint32_t)now == RUNNING)
				die("a process ended by itself");
			atomic_store(&place->pid, 0);
			atomic_compare_exchange_strong(&place->state, &now, word(0, FREE));
		}
		if (++naps > NAPS_MAX) {
			fprintf(stderr, "place %d is still %u, its process %d\n", i,
				(uint32_t)now, atomic_load(&place->pid));
			_exit(1);
		}
		nap();
		there = 0;
		i = -1;
	}
	return there;
}

static void play(uint32_t seed, uint32_t number)
{
	int there = await_all(STOPPED), fd;

	shared->seed = seed;
	shared->operations = number;
	for (int i = 0; i < shared->processes; i++) {
		uint64_t now = atomic_load(&shared->places[i].state);

		if ((uint32_t)now == STOPPED)
			atomic_store(&shared->places[i].state, word(now >> 32, RUNNING));
	}
	atomic_fetch_add(&shared->round, 1);
	syscall(SYS_futex, &shared->round, FUTEX_WAKE, 1 << 20, NULL, NULL, 0);
	/* none takes another's place before all have begun */
	for (; there < shared->processes; there++) {
		uint32_t claimed = atomic_fetch_add(&shared->claims, 1) + 1;

		start_process(claim(claimed), claimed, number, INSTANCES);
	}
	await_all(STOPPED);
	while ((fd = received()) >= 0)
		close(fd);
	printf("%lu %lu\n", atomic_load(&shared->adds), atomic_load(&shared->removals));
	fflush(stdout);
}

/* after an exec, which ended all other threads, in the middle of whatever they did */
static void take_over(void)
{
	become(RUNNING);
	for (int i = 0; i < shared->processes; i++) {
		struct place *place = &shared->places[i];
		uint64_t now = atomic_load(&place->state);

		if ((uint32_t)now == CLAIMED && atomic_load(&place->pid) == -getpid())
			atomic_compare_exchange_strong(&place->state, &now, word(0, FREE));
	}
}

static void *map_shared(int fd)
{
	void *at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		die("mmap");
	return at;
}

static void prepare(char **argv)
{
	int memory = memfd_create("shared", 0), pair[2];
	char path[512];

	if (memory < 0 || ftruncate(memory, sizeof(struct shared)) ||
	    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
		die("prepare");
	dup2(memory, SHARED_FD);
	dup2(pair[0], SENDING_FD);
	dup2(pair[1], RECEIVING_FD);
	close(memory);
	close(pair[0]);
	close(pair[1]);
	shared = map_shared(SHARED_FD);
	shared->first_pid = getpid();
	shared->processes = atoi(argv[2]) < PROCESSES_MAX ? atoi(argv[2]) : PROCESSES_MAX;
	shared->threads = atoi(argv[3]);
	setpgid(0, 0);
	/* its mounts go with it */
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("unshare");
	for (int i = 0; i < MOUNTS; i++) {
		snprintf(path, sizeof(path), "%s/m%d", folder, i);
		mkdir(path, 0700);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGCHLD, SIG_IGN);
}

int main(int argc, char **argv)
{
	unsigned int seed, number;

	if (argc < 4)
		return 2;
	program = argv[0];
	folder = argv[1];
	if (!strcmp(argv[2], "again")) {
		shared = map_shared(SHARED_FD);
		own = atoi(argv[3]);
		take_over();
		be_process(atoi(argv[4]));
	}
	prepare(argv);
	while (scanf("%u %u", &seed, &number) == 2)
		play(seed, number);
	atomic_store(&shared->ending, 1);
	syscall(SYS_futex, &shared->round, FUTEX_WAKE, 1 << 20, NULL, NULL, 0);
	await_all(FREE);
	return 0;
}
