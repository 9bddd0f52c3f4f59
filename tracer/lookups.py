"""What is looked up for a snapshot only where it is shown: paths, containers and pods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from tracer.core.events import Process
from tracer.kernel.procfs import ProcessFacts
from tracer.listing import Scan
from tracer.targets.containers import Containers
from tracer.targets.locate import Location, Sought
from tracer.targets.pods import Pods
from tracer.views import ls as view

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

Locate = Callable[[Sequence[Sought]], Iterator[Location]]


def with_paths(
    snapshot: view.Snapshot,
    scan: Scan,
    locate: Locate,
    only: frozenset[int] | None = None,
    most: int | None = None,
) -> view.Snapshot:
    """The paths of the first `most` watches of each instance, or of these instances."""
    wanted = [one for one in snapshot.instances if only is None or one.id in only]
    sought = [each for instance in wanted for each in _sought(instance, scan, most)]
    found = iter(locate(sought)) if sought else iter(())
    located = {
        instance.id: tuple(
            view.Located(where.path, where.how.value, where.viewer and where.viewer.pid)
            for where in islice(found, len(instance.watches[:most]))
        )
        for instance in wanted
    }
    instances = (replace(one, located=located.get(one.id, ())) for one in snapshot.instances)
    return replace(snapshot, instances=tuple(instances))


def _sought(instance: view.Instance, scan: Scan, most: int | None) -> Iterable[Sought]:
    first = instance.holders[0]
    pids = dict.fromkeys(holder.pid for holder in instance.holders)
    holders = tuple(_process(scan.processes[pid]) for pid in pids)
    for watch in instance.watches[:most]:
        yield Sought(holders, first.fd, watch.wd, watch.inode)


def with_homes(snapshot: view.Snapshot, containers: Containers, pods: Pods) -> view.Snapshot:
    """The containers, pods and units of the processes asked for."""
    homes = {pid: _home(pid, containers, pods) for pid in snapshot.pids}
    return replace(snapshot, homes=homes)


def _home(pid: int, containers: Containers, pods: Pods) -> view.Home:
    belonging = containers.of(pid)
    if belonging is None:
        return view.Home()
    home = view.Home(
        cgroup=belonging.cgroup,
        container=belonging.container,
        runtime=belonging.runtime,
        pod=belonging.pod,
        qos=belonging.qos,
        unit=belonging.unit,
    )
    if belonging.pod is None:
        return home
    pod = pods.named(belonging.pod)
    return home._replace(pod_name=pod.name, namespace=pod.namespace, pod_exists=pod.exists)


def _process(facts: ProcessFacts) -> Process:
    return Process(facts.pid, facts.birth_ticks * _TICK_NS)
