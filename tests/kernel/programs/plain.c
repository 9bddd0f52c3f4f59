#include "chain.h"

int main(void)
{
	get_ready();
	while (next_line())
		outer();
	return 0;
}
