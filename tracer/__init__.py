"""inotrace finds inotify watch leaks with eBPF."""

__version__ = "0.1.0"
