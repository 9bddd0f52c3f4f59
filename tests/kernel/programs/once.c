/* Ends at once after its call, without a return to main. */
#include "chain.h"

KEPT static void last(void)
{
	outer();
	_exit(0);
}

int main(void)
{
	get_ready();
	if (next_line())
		last();
	return 0;
}
