// Uses github.com/fsnotify/fsnotify. `inlined` has no frame of its own.
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/fsnotify/fsnotify"
)

var returned int

//go:noinline
func watchHere(watcher *fsnotify.Watcher) {
	if err := watcher.Add("/"); err != nil {
		panic(err)
	}
	returned++
}

func inlined(watcher *fsnotify.Watcher) {
	watchHere(watcher)
	returned++
}

//go:noinline
func outer(watcher *fsnotify.Watcher) {
	inlined(watcher)
	returned++
}

func main() {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		outer(watcher)
	}
}
