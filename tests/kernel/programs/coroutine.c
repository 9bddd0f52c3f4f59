#include "chain.h"

#include <ucontext.h>

static ucontext_t caller, coroutine;
static char stack[1 << 16];

KEPT static void of_coroutine(void)
{
	outer();
	returned++;
}

int main(void)
{
	get_ready();
	while (next_line()) {
		getcontext(&coroutine);
		coroutine.uc_stack.ss_sp = stack;
		coroutine.uc_stack.ss_size = sizeof stack;
		coroutine.uc_link = &caller;
		makecontext(&coroutine, of_coroutine, 0);
		swapcontext(&caller, &coroutine);
	}
	return 0;
}
