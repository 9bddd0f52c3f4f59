"""Schedules a watch of watchdog in a thread, one folder of the argument's after the other."""

import os
import sys
import threading

from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

observer = Observer()
observer.start()


def outer(folder):
    observer.schedule(FileSystemEventHandler(), folder)


if __name__ == "__main__":
    folders = sorted(entry.path for entry in os.scandir(sys.argv[1]))
    print("ready", flush=True)
    for folder, _ in zip(folders, sys.stdin):
        thread = threading.Thread(target=outer, args=(folder,))
        thread.start()
        thread.join()
    os._exit(0)
