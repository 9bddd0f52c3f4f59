"""What is true of each program of the corpus, whatever inotrace says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LEAK = frozenset({"leak"})
HELD = frozenset({"held"})
CLEAN = frozenset({"clean"})
# Which of them it is depends on what was there at the very end.
NO_LEAK = HELD | CLEAN | {"young"}


class Holding(NamedTuple):
    """By /proc/PID/fdinfo, so that an instance with two holders counts twice."""

    instances: int
    watches: int


class Label(NamedTuple):
    """
    A program, the bug it models, and the verdicts that are right for each of its sites.

    `sites` are named by the function that makes the call: inotify_add_watch(), or inotify_init1()
    where instances are counted. `live` is what is there of a site at the end, where it is judged;
    `evidence` the kinds that must be named for it.
    """

    # of the source without .c, and of the process
    name: str
    bug: str
    sites: Mapping[str, frozenset[str]]
    # all its processes when it is done; where it stays, and all is there
    holds: Holding | None
    live: Mapping[str, int] = {}
    evidence: Mapping[str, frozenset[str]] = {}
    # "trace": within a trace of all programs; "before": started before that trace; "run": by an
    # `inotrace run` of its own; "rounds": poked by the command of an `inotrace run -r`; "slowly":
    # within a trace of its own, for long
    how: str = "trace"
    # that it had before the trace, and still has
    baseline: int = 0
    needs_root: bool = False
    # a program of this machine instead of one of ours; FILE is a file that grows
    command: tuple[str, ...] = ()


_BALANCED = "certs hosts keys locale mounts policy routes rules tokens units zones"

LEAKS = (
    Label(
        "kubelet_pods",
        "kubernetes#10421",
        {
            "kubelet_new_watcher": HELD,
            "kubelet_watch_volume": CLEAN,
            "kubelet_watch_config": CLEAN,
            "kubelet_watch_secret": LEAK,
        },
        Holding(1, 20),
        {"kubelet_watch_secret": 20},
        evidence={"kubelet_watch_secret": frozenset({"never_removed", "grows_to_end"})},
    ),
    Label(
        "one_of_many",
        "one of twelve balanced places",
        {
            "many_watch_plugins": LEAK,
            **{f"many_watch_{feature}": CLEAN for feature in _BALANCED.split()},
        },
        Holding(1, 20),
        {"many_watch_plugins": 20},
    ),
    Label(
        "blocked_reader",
        "kubernetes#94583",
        # the same queue is a reason against the watches that fill it and their instance
        {"blocked_new_watcher": HELD | LEAK, "blocked_watch_folder": LEAK},
        Holding(1, 3),
        {"blocked_new_watcher": 1, "blocked_watch_folder": 3},
        how="slowly",
        evidence={"blocked_watch_folder": frozenset({"unread"})},
    ),
    Label(
        "oom_instances",
        "containerd#5670",
        {"oom_open_events": LEAK, "oom_watch_events": CLEAN},
        Holding(20, 0),
        {"oom_open_events": 20},
    ),
    Label(
        "orphan_readers",
        "cadvisor#1725",
        {"orphan_open_journal": LEAK, "orphan_watch_journal": LEAK},
        Holding(32, 32),
        {"orphan_open_journal": 32, "orphan_watch_journal": 32},
        evidence={"orphan_open_journal": frozenset({"orphaned", "more_processes"})},
    ),
    Label(
        "log_followers",
        "kubernetes#64315",
        {"follower_new_watcher": LEAK, "follower_watch_log": LEAK},
        Holding(20, 20),
        {"follower_new_watcher": 20, "follower_watch_log": 20},
    ),
    Label(
        "unclosed_on_err",
        "calico#13727",
        {"calico_new_watcher": LEAK, "calico_add_watch": CLEAN},
        Holding(20, 0),
        {"calico_new_watcher": 20},
        evidence={"calico_new_watcher": frozenset({"without_watch", "grows_to_end"})},
    ),
    Label(
        "viper_config",
        "viper#2038, higress#236",
        {"viper_new_watcher": LEAK, "viper_watch_config": LEAK},
        Holding(20, 20),
        {"viper_new_watcher": 20, "viper_watch_config": 20},
    ),
    Label(
        "instance_kept",
        "fsnotify#3",
        {"kept_new_watcher": LEAK, "kept_add_watch": CLEAN},
        Holding(20, 0),
        {"kept_new_watcher": 20},
        evidence={"kept_new_watcher": frozenset({"without_watch"})},
    ),
    Label(
        "reload_shared",
        "finit#417",
        {"finit_open": HELD, "finit_watch_conf": LEAK},
        Holding(2, 40),
        {"finit_open": 1, "finit_watch_conf": 20},
    ),
    Label(
        "reload_instance",
        "habitat#5416",
        {"habitat_new_watcher": LEAK, "habitat_watch_folder": LEAK},
        Holding(10, 50),
        {"habitat_new_watcher": 10, "habitat_watch_folder": 50},
    ),
    Label(
        "editor_folders",
        "vscode#327108",
        {
            "editor_new_watcher": HELD,
            "editor_watch_folder": LEAK,
            "editor_watch_settings": CLEAN,
        },
        Holding(1, 80),
        {"editor_watch_folder": 80},
    ),
    Label(
        "recursive_tree",
        "notify#60",
        {"tree_new_watcher": HELD, "tree_add_folder": LEAK},
        Holding(1, 80),
        {"tree_add_folder": 80},
    ),
    Label(
        "unscheduled",
        "watchdog#66",
        {"observer_new_watcher": HELD, "observer_schedule": LEAK, "observer_look": CLEAN},
        Holding(2, 20),
        {"observer_schedule": 20},
    ),
    Label(
        "duplicates",
        "the same target again and again",
        {"twice_new_watcher": LEAK, "twice_watch_resolv": LEAK},
        Holding(20, 20),
        {"twice_new_watcher": 20, "twice_watch_resolv": 20},
        evidence={"twice_watch_resolv": frozenset({"watched_again"})},
    ),
    Label(
        "slow_leak",
        "one in a hundred",
        {"slow_new_watcher": HELD, "slow_watch_item": LEAK},
        Holding(1, 20),
        {"slow_watch_item": 20},
        evidence={"slow_watch_item": frozenset({"partly_removed", "outlived"})},
    ),
    Label(
        "pod_tmpfs",
        "a mount that another namespace keeps alive",
        {"tmpfs_new_watcher": HELD, "tmpfs_watch_token": LEAK},
        Holding(1, 10),
        {"tmpfs_watch_token": 10},
        needs_root=True,
        evidence={"tmpfs_watch_token": frozenset({"target_gone"})},
    ),
    Label(
        "pinned_deleted",
        "deleted files that stay open",
        {"pinned_new_watcher": HELD, "pinned_watch_log": LEAK},
        Holding(1, 12),
        {"pinned_watch_log": 12},
        evidence={"pinned_watch_log": frozenset({"target_gone"})},
    ),
    Label(
        "poked_daemon",
        "one more for each request",
        {
            "poked_watch_session": LEAK,
            "poked_warm_cache": HELD,
            "poked_watch_request": NO_LEAK,
        },
        None,
        how="rounds",
        baseline=1,
        evidence={
            "poked_watch_session": frozenset({"grows_each_round"}),
            "poked_warm_cache": frozenset({"flat_in_rounds"}),
        },
    ),
    Label(
        "leaking_worker",
        "freed by exits only",
        {"worker_new_watcher": NO_LEAK, "worker_watch_job": LEAK},
        None,
        {"worker_watch_job": 40},
        how="run",
        evidence={"worker_watch_job": frozenset({"in_several", "freed_only_by_exit"})},
    ),
)

NO_LEAKS = (
    Label(
        "big_tree",
        "a tree that is watched once",
        {"big_new_watcher": HELD, "big_watch_folder": HELD},
        Holding(1, 2000),
        {"big_new_watcher": 1, "big_watch_folder": 2000},
    ),
    Label(
        "plateau",
        "grows for a while",
        {"plateau_new_watcher": HELD, "plateau_watch_item": HELD},
        Holding(1, 39),
        {"plateau_watch_item": 39},
        evidence={"plateau_watch_item": frozenset({"plateau"})},
    ),
    Label(
        "close_frees_all",
        "systemd#15381",
        {"journal_open": CLEAN, "journal_watch_folder": CLEAN},
        Holding(0, 0),
    ),
    Label(
        "updates_same_wd",
        "the same watch again and again",
        {"update_new_watcher": HELD, "update_watch_again": NO_LEAK},
        Holding(1, 3),
        {"update_watch_again": 3},
    ),
    Label(
        "log_tail",
        "tail -f",
        {"inotify_add_watch": HELD},
        None,
        {"inotify_add_watch": 1},
        command=("tail", "-f", "FILE"),
    ),
    Label(
        "cache_fifo",
        "evicts the oldest",
        {"fifo_new_watcher": HELD, "fifo_watch_entry": HELD},
        Holding(1, 20),
        {"fifo_watch_entry": 20},
    ),
    Label(
        "cache_random",
        "evicts any",
        {"random_new_watcher": HELD, "random_watch_entry": HELD},
        Holding(1, 18),
        {"random_watch_entry": 18},
    ),
    Label(
        "config_reload",
        "habitat#5416, mended",
        {"config_new_watcher": NO_LEAK, "config_watch_file": NO_LEAK},
        Holding(1, 3),
        {"config_new_watcher": 1, "config_watch_file": 3},
    ),
    Label(
        "rm_einval",
        "kubernetes#100241",
        {"einval_new_watcher": HELD, "einval_watch_pod": CLEAN},
        Holding(1, 0),
    ),
    Label(
        "from_baseline",
        "all from before the trace",
        {},
        Holding(1, 25),
        how="before",
        baseline=25,
    ),
    Label(
        "file_manager",
        "opens and closes",
        {"manager_new_watcher": HELD, "manager_watch_folder": NO_LEAK},
        Holding(1, 4),
        {"manager_watch_folder": 4},
    ),
    Label(
        "container_shims",
        "containerd#10468",
        {"shim_open_events": HELD, "shim_watch_events": HELD},
        Holding(6, 6),
        {"shim_open_events": 6, "shim_watch_events": 6},
    ),
    Label(
        "low_limit",
        "k0s#8113, kind#2586",
        {"limit_new_watcher": HELD, "limit_watch_first": HELD},
        Holding(1, 16),
        {"limit_watch_first": 16},
        needs_root=True,
    ),
    Label(
        "low_rlimit",
        "argo-cd#13596",
        {"rlimit_new_watcher": HELD, "rlimit_watch_repo": NO_LEAK},
        Holding(1, 2),
        {"rlimit_watch_repo": 2},
    ),
    Label(
        "batch_sawtooth",
        "job after job",
        {"batch_new_watcher": HELD, "batch_watch_item": HELD},
        Holding(1, 12),
        {"batch_watch_item": 12},
        evidence={"batch_watch_item": frozenset({"falls_back"})},
    ),
    Label(
        "oneshot_rearmed",
        "fires and is armed again",
        {"oneshot_new_watcher": HELD, "oneshot_arm": NO_LEAK},
        Holding(1, 1),
        {"oneshot_arm": 1},
    ),
    Label(
        "worker_pool",
        "workers that come and go",
        {"pool_new_watcher": NO_LEAK, "pool_watch_queue": NO_LEAK},
        None,
        how="run",
    ),
    Label(
        "base_replaced",
        "as many as before",
        {"replaced_new_watcher": HELD, "replaced_watch_unit": HELD},
        Holding(1, 30),
        {"replaced_new_watcher": 1, "replaced_watch_unit": 30},
        how="before",
        evidence={"replaced_watch_unit": frozenset({"as_at_baseline"})},
    ),
    Label(
        "close_at_exit",
        "closes before it exits",
        {"closer_new_watcher": CLEAN, "closer_watch_input": CLEAN},
        None,
        evidence={"closer_watch_input": frozenset({"closed_on_purpose"})},
        how="run",
    ),
)

CORPUS = LEAKS + NO_LEAKS


def run_as(*ways: str) -> list[Label]:
    """The programs that are run in one of these ways (`Label.how`)."""
    return [label for label in CORPUS if label.how in ways]
