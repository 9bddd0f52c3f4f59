/*
 * The call is made while the dynamic linker looks for a function, on a program's first call of it.
 * With LIBRARY this is the library that has the function.
 */
#define OWN_MIDDLE
#ifdef LIBRARY
#define OWN_OUTER
#endif
#include "chain.h"

#ifdef LIBRARY

static void chosen(void)
{
	returned++;
}

KEPT static void (*choose(void))(void)
{
	instance = inotify_init1(IN_CLOEXEC);
	watch_here();
	returned++;
	return chosen;
}

void middle(void) __attribute__((ifunc("choose")));

#else

int main(void)
{
	(void)watch_here;
	get_ready();
	while (next_line())
		outer();
	return 0;
}

#endif
