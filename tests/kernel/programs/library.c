/* Loaded by loader.c. With AT_LOAD it makes the call while it is loaded. */
#define OWN_OUTER
#include "chain.h"

#ifdef AT_LOAD
__attribute__((constructor)) static void at_load(void)
{
	instance = inotify_init1(IN_CLOEXEC);
	middle();
	returned++;
}
#endif

__attribute__((destructor)) static void at_unload(void)
{
	close(instance);
}

__attribute__((visibility("default"))) void watch_by_library(void)
{
	if (!instance)
		instance = inotify_init1(IN_CLOEXEC);
	middle();
	returned++;
}
