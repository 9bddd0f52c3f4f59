// SPDX-License-Identifier: GPL-2.0
/* fuzz: what its processes share, and chance. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES_MAX	5
#define INSTANCES	5	/* descriptors of one table: fewer than 100 in all */
#define FIRST_INSTANCE	20
#define FILES		3
#define FIRST_FILE	40
#define SHARED_FD	50
#define SENDING_FD	51
#define RECEIVING_FD	52
#define FOLDERS		9
#define NAMES		4
#define MOUNTS		2
#define NAPS_MAX	150000	/* of 100 us at least: some 25 s */

enum state { FREE, CLAIMED, RUNNING, STOPPED, EXITING };

struct place {
	_Atomic uint64_t state;		/* who claimed it, in the upper half */
	_Atomic int pid;
};

struct shared {
	_Atomic uint32_t round;
	_Atomic uint32_t ending;
	_Atomic uint32_t claims;
	_Atomic uint64_t adds, removals;
	_Atomic int mounted[MOUNTS];
	uint32_t seed, operations;
	int first_pid, processes, threads;
	struct place places[PROCESSES_MAX];
};

/* one thread of execution */
struct worker {
	uint64_t random;
	uint32_t left;
	int wds[INSTANCES];
};

static struct shared *shared;
static const char *program, *folder;
static int own;				/* which of the places is this process's */
static pthread_t apart;			/* the thread with a table of its own */
static _Atomic int apart_tid, apart_ends;
static _Atomic uint32_t apart_stopped;

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

/* --- shared memory --- */

static uint64_t word(uint32_t claim, enum state state)
{
	return (uint64_t)claim << 32 | state;
}

static void become(enum state state)
{
	struct place *place = &shared->places[own];

	atomic_store(&place->state, word(atomic_load(&place->state) >> 32, state));
}

static void await_change(_Atomic uint32_t *at, uint32_t from)
{
	struct timespec patience = { 0, 100000000 };

	while (atomic_load(at) == from && !atomic_load(&shared->ending)) {
		syscall(SYS_futex, at, FUTEX_WAIT, from, &patience, NULL, 0);
		if (kill(shared->first_pid, 0))
			_exit(0);
	}
	if (atomic_load(&shared->ending))
		_exit(0);
}

static void nap(void)
{
	struct timespec a_moment = { 0, 100000 };

	nanosleep(&a_moment, NULL);
}

/* --- chance --- */

static uint32_t below(struct worker *w, uint32_t limit)
{
	w->random = w->random * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(w->random >> 33) % limit;
}

static uint64_t seeded(uint64_t which)
{
	return (shared->seed + 1) * 0x9e3779b97f4a7c15u ^ (which + 1) * 0xbf58476d1ce4e5b9u;
}

static int some_instance(struct worker *w)
{
	return FIRST_INSTANCE + below(w, INSTANCES);
}

static const char *some_path(struct worker *w, char *out)
{
	char mount[8] = "";
	int size;

	if (!below(w, 5))
		snprintf(mount, sizeof(mount), "m%u/", below(w, MOUNTS));
	size = snprintf(out, 512, "%s/%sd%u", folder, mount, below(w, FOLDERS));
	if (below(w, 2))
		snprintf(out + size, 512 - size, "/f%u", below(w, NAMES));
	return out;
}
