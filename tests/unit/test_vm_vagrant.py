"""What tests/vm/vagrant takes from the Vagrantfile and from the machine, and how it judges."""

from __future__ import annotations

import fcntl
from pathlib import Path

import carried
import host
import image
import provisioning
import pytest

CHECKOUT = Path(__file__).parents[2]

_VAGRANTFILE = """
  config.vm.provision "shell", inline: <<~SHELL
    set -eu
    /vagrant/inotrace install
  SHELL
end
"""
_DEMO = "LEAK  23 watches\r\n  23  watch_pod_secret  in agent\r\n"


def test_the_script_of_the_vagrantfile_is_the_one_that_runs() -> None:
    script = provisioning.provisioning((CHECKOUT / "Vagrantfile").read_text())

    assert script.split()[:2] == ["set", "-eu"]
    assert script.split()[-2:] == ["/vagrant/inotrace", "install"]


@pytest.mark.parametrize("text", ["", _VAGRANTFILE * 2], ids=["none", "two"])
def test_another_number_of_scripts_is_refused(text: str) -> None:
    with pytest.raises(host.Failed, match="not one"):
        provisioning.provisioning(text)


def test_what_pip_knows_of_its_indexes_comes_along() -> None:
    """GIVEN pip's settings WHEN carried THEN the environment wins, folders stay here."""
    listed = (
        ":env:.default-timeout='180'\n"
        ":env:.find-links='/opt/wheels'\n"
        "global.timeout='3'\n"
        "global.extra-index-url='file:///opt/simple https://index.example/simple'\n"
        "global.index-url='http://localhost:3141/simple'\n"
        "user.username='x'\n"
    )

    assert carried.pip_settings(listed) == {
        "timeout": "180",
        "extra-index-url": "https://index.example/simple",
        "index-url": "http://10.0.2.2:3141/simple",
    }


def test_proxies_come_along() -> None:
    environment = {
        "http_proxy": "http://127.0.0.1:3128",
        "HTTPS_PROXY": "http://proxy.example:3128/?a b",
        "HOME": "/root",
    }

    assert carried.proxies(environment) == (
        "http_proxy=http://10.0.2.2:3128\nHTTPS_PROXY='http://proxy.example:3128/?a b'\n"
    )


@pytest.mark.parametrize(
    ("code", "said", "judged"),
    [
        (0, _DEMO, 0),
        (0, "no leak", 1),
        (1, _DEMO, 1),
        (None, _DEMO, 1),
        (100, "E: Failed to fetch http://mirror.example/x  Connection failed", 77),
        (100, "E: Unable to locate package gcc", 1),
        (None, "W: Failed to fetch http://mirror.example/x", 1),
        (1, "W: Failed to fetch http://mirror.example/x\r\nin-vagrant: provisioned in 9 s\r\n", 1),
    ],
)
def test_only_a_demo_that_found_its_leak_passes(code: int | None, said: str, judged: int) -> None:
    assert provisioning.judged(code, said, Path("output")) == judged


# --- the cache ---


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With an image of an earlier recipe."""
    monkeypatch.setattr(host, "cache", lambda: tmp_path)
    for name in ("vagrant-0.img", "vagrant-0.vmlinuz"):
        (tmp_path / name).touch()
    return tmp_path


def test_an_image_is_kept_until_another_is_made(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(root: Path, log: Path) -> None:
        assert root.parent.name.startswith(host.UNFINISHED)
        (root / "boot").mkdir(parents=True)
        (root / "boot/vmlinuz-6.1").write_text("kernel")

    def fail(disk: Path, root: Path, *, free: int) -> None:
        raise host.Failed("no space")

    monkeypatch.setattr(provisioning, "_install_debian", install)
    monkeypatch.setattr(image, "make_disk", fail)
    with pytest.raises(host.Failed):
        provisioning.prepared(cache, cache / "log")
    assert {path.name for path in cache.iterdir()} == {"vagrant-0.img", "vagrant-0.vmlinuz"}

    monkeypatch.setattr(image, "make_disk", lambda disk, root, free: disk.touch())
    made = provisioning.prepared(cache, cache / "log")
    assert set(cache.iterdir()) == set(made)
    assert made.kernel.read_text() == "kernel"


def test_one_run_at_a_time_provisions(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install_tools(log: Path) -> None:
        with (cache / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise host.Unreachable("no network")

    monkeypatch.setattr(host, "install_tools", install_tools)

    assert provisioning.main([]) == provisioning.EXIT_SKIPPED


def test_a_guest_of_an_earlier_run_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a run that was killed WHEN another begins THEN its folder is of the kind removed."""
    folders: list[str] = []

    def boot(made: image.Image, folder: Path, *_: object) -> int:
        folders.append(folder.name)
        return 1

    monkeypatch.setattr(provisioning.guest, "boot", boot)
    monkeypatch.setattr(provisioning.guest, "pack", lambda *_, **__: None)
    monkeypatch.setattr(carried, "files", dict)
    made = image.Image(cache / "vagrant-0.img", cache / "vagrant-0.vmlinuz")

    assert provisioning._tried(made, "", cache, 1.0) == 1
    assert folders[0].startswith(host.UNFINISHED)
