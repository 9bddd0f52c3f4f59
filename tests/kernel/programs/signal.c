/* The call is made in a handler of signals, with ALTERNATE on a stack of its own. */
#define OWN_MIDDLE
#include "chain.h"

#include <signal.h>

static char alternate[1 << 16];

KEPT static void on_signal(int number)
{
	(void)number;
	watch_here();
	returned++;
}

KEPT void middle(void)
{
	kill(getpid(), SIGUSR1);
	returned++;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};

	(void)argv;
	if (argc > 1) {
		sigaltstack(&stack, NULL);
		action.sa_flags = SA_ONSTACK;
	}
	sigaction(SIGUSR1, &action, NULL);
	get_ready();
	while (next_line())
		outer();
	return 0;
}
