#include "chain.h"

#include <pthread.h>

KEPT static void *of_thread(void *nothing)
{
	outer();
	returned++;
	return nothing;
}

int main(void)
{
	pthread_t thread;

	get_ready();
	while (next_line()) {
		if (pthread_create(&thread, NULL, of_thread, NULL) || pthread_join(thread, NULL))
			abort();
	}
	return 0;
}
