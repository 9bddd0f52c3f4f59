// Makes the call in C: the C function runs on the thread's own stack, not on the goroutine's.
package main

/*
#include <sys/inotify.h>

static int instance;
static volatile int returned;

static void start(void) { instance = inotify_init1(IN_CLOEXEC); }

static __attribute__((noipa)) void watch_here(void)
{
	returned += inotify_add_watch(instance, "/", IN_CREATE);
}

static __attribute__((noipa)) void middle(void)
{
	watch_here();
	returned++;
}
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
)

var returned int

//go:noinline
func outer() {
	C.middle()
	returned++
}

func main() {
	C.start()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		outer()
	}
}
