// The call is made by a method of a template, from a handler of exceptions, from a destructor while
// an exception passes, and from a thread of the library, as the first argument says.
#include "chain.h"

#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace store {

template <typename Key, int Size> class Watcher {
public:
	KEPT void add(const std::vector<Key> &keys)
	{
		outer();
		returned += keys.size() + Size;
	}
};

class Guard {
public:
	KEPT ~Guard()
	{
		Watcher<std::string, 7>().add({"one", "two"});
		returned++;
	}
};

} // namespace store

KEPT static void fail(void)
{
	throw std::runtime_error("as it must");
}

KEPT static void in_handler(void)
{
	try {
		fail();
	} catch (const std::exception &error) {
		store::Watcher<unsigned long, 3>().add({strlen(error.what())});
		returned++;
	}
}

KEPT static void in_passing(void)
{
	store::Guard guard;
	fail();
}

KEPT static void in_destructor(void)
{
	try {
		in_passing();
	} catch (const std::exception &) {
		returned++;
	}
}

KEPT static void in_thread(void)
{
	std::thread([] {
		store::Watcher<char, 1>().add({'x'});
		returned++;
	}).join();
}

int main(int, char **argv)
{
	void (*call)(void) = !strcmp(argv[1], "handler") ? in_handler :
		!strcmp(argv[1], "destructor") ? in_destructor : in_thread;

	get_ready();
	while (next_line())
		call();
	return 0;
}
