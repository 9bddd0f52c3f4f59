/* As deep as the argument says. */
#define OWN_MIDDLE
#define OWN_OUTER
#include "chain.h"

KEPT static void deeper(int more)
{
	if (more > 1)
		deeper(more - 1);
	else
		watch_here();
	returned++;
}

int main(int argc, char **argv)
{
	int depth = argc > 1 ? atoi(argv[1]) : 1;

	get_ready();
	while (next_line())
		deeper(depth);
	return 0;
}
