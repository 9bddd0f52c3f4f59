"""Where watches on overlays are, by the kernel's names and by the handles of their layers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from harness import Puppet
from locating import NOWHERE, Kernel, descriptors, located, watch

from tracer.kernel.fdinfo import read_handles
from tracer.kernel.filesystem import filesystem_uuid
from tracer.targets import overlay
from tracer.targets.locate import How
from tracer.targets.overlay import real_handle

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]
pytest_plugins = ("locating_fixtures",)


@pytest.fixture
def overlaid(root: None) -> Iterator[Callable[..., Path]]:
    """Mounts an overlay; unmounted at the end."""
    mounts: list[Path] = []

    def mount(where: Path, options: str) -> Path:
        where.mkdir(exist_ok=True)
        command = ["mount", "-t", "overlay", "-o", options, "inotrace-test", where]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount an overlay: {done.stderr}")
        mounts.append(where)
        return where

    yield mount
    for where in reversed(mounts):
        subprocess.run(["umount", where], check=True)


def test_overlays(
    kernel: Kernel, puppet: Puppet, overlaid: Callable[..., Path], tmp_path: Path
) -> None:
    """GIVEN files of the upper and of two lower layers, and one that was copied up."""
    lower, other, upper, work, on = (
        tmp_path / name for name in ("lower", "ot:her", "upper", "work", "on")
    )
    for folder in (lower / "folder", other, upper, work, on):
        folder.mkdir(parents=True)
    for file in (lower / "low", lower / "folder" / "in", other / "other", upper / "up"):
        file.touch()
    layers = f"lowerdir={lower}:{str(other).replace(':', chr(92) + ':')}"
    overlaid(on, f"{layers},upperdir={upper},workdir={work}")
    (on / "new").touch()
    names = ("", "low", "folder", "folder/in", "other", "up", "new")
    watch(puppet, *(on / name for name in names))
    assert kernel.by_names(puppet.pid) == [located(on / name, How.DENTRY) for name in names]
    told = kernel.by_told_handles(puppet.pid)
    if {location.how for location in told} <= {How.SEARCH, How.UNRESOLVED}:
        pytest.skip("this kernel does not tell the handles of overlays")
    for location, name in zip(told, names):
        assert location.path in (None, os.fsencode(on / name))
    assert sum(location.how is How.OVERLAY for location in told) >= len(names) - 2


@pytest.mark.parametrize("options", ["", ",xino=off", ",uuid=off"])
def test_an_overlay_over_several_filesystems(
    kernel: Kernel,
    puppet: Puppet,
    mounted: Callable[..., Path],
    overlaid: Callable[..., Path],
    tmp_path: Path,
    options: str,
) -> None:
    """GIVEN files for which stat(2) has a device that is in no mount table."""
    upper, lower = mounted(), mounted()
    for folder in (upper / "upper", upper / "work", lower / "folder"):
        folder.mkdir()
    for file in (upper / "upper" / "up", lower / "low", lower / "copied", lower / "folder" / "in"):
        file.touch()
    layers = f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work"
    on = overlaid(tmp_path / "on", layers + options)
    (on / "new").touch()
    (on / "copied").write_text("changed")
    names = ("", "up", "low", "copied", "folder", "folder/in", "new")
    watch(puppet, *(on / name for name in names))
    assert kernel.by_names(puppet.pid) == [located(on / name, How.DENTRY) for name in names]
    if not _told_handles(kernel, puppet):
        pytest.skip("this kernel does not tell the handles of overlays")
    told = [located(on / name, How.OVERLAY) for name in names]
    assert kernel.by_told_handles(puppet.pid) == told


@pytest.fixture
def clones(tmp_path: Path, root: None) -> Iterator[Callable[[bool], list[Path]]]:
    """Mounts a filesystem and its copy, in which the same inode has another name: `a` and `b`."""
    mounts: list[Path] = []

    def made(with_new_uuid: bool) -> list[Path]:
        if not (shutil.which("mkfs.ext4") and shutil.which("tune2fs")):
            pytest.skip("no mkfs.ext4 or tune2fs")
        images = [tmp_path / f"image-{at}" for at in range(2)]
        with images[0].open("wb") as image:
            image.truncate(4 << 20)
        # without checksums, which are of the UUID too
        command = ["mkfs.ext4", "-q", "-O", "^metadata_csum,^has_journal", images[0]]
        subprocess.run(command, check=True)
        _mount_image(images[0], tmp_path / "filled")
        (tmp_path / "filled" / "a").touch()
        subprocess.run(["umount", tmp_path / "filled"], check=True)
        shutil.copyfile(images[0], images[1])
        if with_new_uuid:
            subprocess.run(["tune2fs", "-U", "random", images[1]], check=True, capture_output=True)
        for image in images:
            mounts.append(_mount_image(image, tmp_path / f"clone-{image.name}"))
        (mounts[1] / "a").rename(mounts[1] / "b")
        return mounts

    yield made
    for where in mounts:
        if os.path.ismount(where):
            subprocess.run(["umount", where], check=True)


def _mount_image(image: Path, where: Path) -> Path:
    where.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, where], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount an image: {done.stderr}")
    return where


@pytest.mark.parametrize(
    ("differ", "are_told"), [(False, True), (True, False), (True, True)], ids=str
)
def test_a_handle_that_leads_somewhere_in_two_layers(
    kernel: Kernel,
    puppet: Puppet,
    clones: Callable[[bool], list[Path]],
    overlaid: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    differ: bool,
    are_told: bool,
) -> None:
    """GIVEN the same number and generation in each THEN only UUIDs tell which it is of."""
    lower = clones(differ)
    on = overlaid(tmp_path / "on", f"lowerdir={lower[0]}:{lower[1]},xino=off")
    assert (on / "a").stat().st_ino == (on / "b").stat().st_ino
    watch(puppet, on / "b")
    if not are_told:
        monkeypatch.setattr(overlay, "filesystem_uuid", lambda _: None)
    elif differ and not (_has_uuid(lower[0]) and _told_handles(kernel, puppet)):
        pytest.skip("this kernel does not tell UUIDs, or the handles of overlays")
    expected = located(on / "b", How.OVERLAY) if differ and are_told else NOWHERE
    assert kernel.by_told_handles(puppet.pid) == [expected]


def test_an_overlay_of_which_a_layer_is_not_seen(
    kernel: Kernel,
    puppet: Puppet,
    clones: Callable[[bool], list[Path]],
    overlaid: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GIVEN that its handle may be of that layer THEN it is not opened in another."""
    monkeypatch.setattr(overlay, "filesystem_uuid", lambda _: None)
    lower = clones(True)
    on = overlaid(tmp_path / "on", f"lowerdir={lower[0]}:{lower[1]},xino=off")
    assert (on / "a").stat().st_ino == (on / "b").stat().st_ino
    watch(puppet, on / "b")
    subprocess.run(["umount", lower[1]], check=True)
    lower[1].rmdir()
    assert kernel.by_told_handles(puppet.pid) == [NOWHERE]


def _has_uuid(where: Path) -> bool:
    folder = os.open(where, os.O_RDONLY)
    try:
        return filesystem_uuid(folder) is not None
    finally:
        os.close(folder)


def _told_handles(kernel: Kernel, puppet: Puppet) -> bool:
    """Whether handles of an overlay have those of its layers in them; before Linux 6.6 not all."""
    handles = [read_handles(puppet.pid, one.fd) for one in kernel.sought(puppet.pid)]
    real = [real_handle(one) for told in handles for one in told.values()]
    return all(handles) and None not in real


def test_an_overlay_below_another_mount_has_no_path(
    kernel: Kernel,
    puppet: Puppet,
    mounted: Callable[..., Path],
    overlaid: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """GIVEN that at the path of its file there is one of another filesystem with that number."""
    layer, point = mounted(), tmp_path / "point"
    for folder in (layer / "lower", layer / "other", layer / "lower" / "folder", point):
        folder.mkdir()
    on = overlaid(point / "on", f"lowerdir={layer}/lower:{layer}/other")
    watched = on / "folder"
    watch(puppet, watched)
    number = watched.stat().st_ino
    assert kernel.by_names(puppet.pid) == [located(watched, How.DENTRY)]
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", point], check=True)
    try:
        on.mkdir()
        watched.mkdir()
        # a tmpfs numbers one after the other
        while watched.stat().st_ino < number:
            watched.rmdir()
            watched.mkdir()
        assert watched.stat().st_ino == number
        assert kernel.by_names(puppet.pid) == [NOWHERE]
        assert kernel.by_told_handles(puppet.pid) == [NOWHERE]
    finally:
        subprocess.run(["umount", point], check=True)


def test_the_root_of_an_overlay_is_not_what_has_its_number_in_there(
    kernel: Kernel,
    puppet: Puppet,
    mounted: Callable[..., Path],
    overlaid: Callable[..., Path],
    refused: None,
) -> None:
    """
    GIVEN an overlay in a folder that is searched for something else, one of its files, its root and
    the folder it is on having one number
    """
    lower, upper, disk = mounted(), mounted(), mounted()
    on = disk / "on"
    (lower / "file").touch()
    for folder in (upper / "upper", upper / "work", on, disk / "other"):
        folder.mkdir()
    options = f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work,xino=off"
    below = on.stat().st_ino
    overlaid(on, options)
    watch(puppet, on / "file", disk / "other")
    if len({below, on.stat().st_ino, kernel.sought(puppet.pid)[0].inode.ino}) > 1:
        pytest.skip("this kernel gives an overlay other numbers")
    found = kernel.by_told_handles(puppet.pid)
    assert found[0].path in (None, os.fsencode(on / "file"))
    assert found[1] == located(disk / "other", How.SEARCH)


def test_overlays_of_more_layers_than_folders_can_be_open(
    kernel: Kernel,
    puppet: Puppet,
    mounted: Callable[..., Path],
    overlaid: Callable[..., Path],
    tmp_path: Path,
) -> None:
    disk = mounted()
    layers = [disk / f"{at}" for at in range(23)]
    for at, layer in enumerate(layers):
        (layer / f"in-{at}").mkdir(parents=True)
    lower = ":".join(f"{layer}" for layer in layers)
    points = [overlaid(tmp_path / f"on-{at}", f"lowerdir={lower}") for at in range(3)]
    watch(puppet, *(point / "in-17" for point in points))
    expected = [located(point / "in-17", How.OVERLAY) for point in points]
    if not _told_handles(kernel, puppet):
        pytest.skip("this kernel does not tell the handles of overlays")
    with descriptors(17):
        assert kernel.by_told_handles(puppet.pid) == expected
