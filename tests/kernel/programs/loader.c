/*
 * Loads the library that the argument names and makes its call, unless loading does. It stays until
 * the next call: of what was unloaded at once nobody could tell the names.
 */
#define OWN_MIDDLE
#define OWN_OUTER
#include "chain.h"

#include <dlfcn.h>

KEPT static void outer(const char *path)
{
	static void *library;
	void (*call)(void);

	if (library)
		dlclose(library);
	library = dlopen(path, RTLD_NOW);
	call = library ? dlsym(library, "watch_by_library") : NULL;
	if (!call)
		abort();
#ifndef AT_LOAD
	call();
#endif
	returned++;
}

int main(int argc, char **argv)
{
	(void)watch_here;
	if (argc != 2)
		return 2;
	get_ready();
	while (next_line())
		outer(argv[1]);
	return 0;
}
