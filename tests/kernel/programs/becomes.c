/* Makes a call, and for the next line becomes the program that its arguments name, if they do. */
#include "chain.h"

int main(int argc, char **argv)
{
	get_ready();
	while (next_line()) {
		outer();
		if (argc > 1 && next_line())
			execv(argv[1], argv + 1);
	}
	return 0;
}
