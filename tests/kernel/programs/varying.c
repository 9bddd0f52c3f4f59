/* Frames whose size is known only when they run: alloca() and an array of variable length. */
#define OWN_MIDDLE
#define OWN_OUTER
#include "chain.h"

#include <alloca.h>

static volatile unsigned long size = 300;

KEPT static void touch(volatile char *memory)
{
	memory[0] = 1;
}

KEPT void middle(void)
{
	char array[size];

	touch(array);
	watch_here();
	touch(array);
}

KEPT static void outer(void)
{
	char *memory = alloca(2 * size);

	touch(memory);
	middle();
	touch(memory);
}

int main(void)
{
	get_ready();
	while (next_line()) {
		size += 4099;
		outer();
	}
	return 0;
}
