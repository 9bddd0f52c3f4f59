/* A stack that is aligned anew and of a size known only when it runs: the CFA is in memory. */
#define OWN_MIDDLE
#include "chain.h"

#include <alloca.h>

static volatile unsigned long size = 100;

KEPT static void touch(void *one, void *other)
{
	returned += one == other;
}

KEPT void middle(void)
{
	_Alignas(64) char aligned[256];

	touch(aligned, alloca(size));
	watch_here();
	touch(aligned, aligned);
}

int main(void)
{
	get_ready();
	while (next_line())
		outer();
	return 0;
}
