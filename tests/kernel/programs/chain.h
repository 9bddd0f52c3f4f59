/*
 * A chain of calls that no compiler may shorten: outer, middle, watch_here.
 *
 * Every program here writes a line when it is ready, and makes its call for each line it is sent.
 */
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#define KEPT __attribute__((noipa, used))

static int instance;
/* what follows a call keeps it from being a jump */
static volatile int returned;

KEPT static void watch_here(void)
{
	if (inotify_add_watch(instance, "/", IN_CREATE) < 0)
		abort();
	returned++;
}

#ifdef OWN_MIDDLE
void middle(void);
#else
KEPT static void middle(void)
{
	watch_here();
	returned++;
}
#endif

#ifndef OWN_OUTER
KEPT static void outer(void)
{
	middle();
	returned++;
}
#endif

/* read() and not stdio: what is sent ahead stays for the next program */
static inline __attribute__((always_inline)) int next_line(void)
{
	char byte;

	while (read(0, &byte, 1) == 1)
		if (byte == '\n')
			return 1;
	return 0;
}

static inline __attribute__((always_inline)) void get_ready(void)
{
	instance = inotify_init1(IN_CLOEXEC);
	if (instance < 0 || write(1, "ready\n", 6) != 6)
		abort();
}
