"""What tests/vm/vagrant takes from the Vagrantfile and from the machine, and how it judges."""

from __future__ import annotations

from pathlib import Path

import carried
import host
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
    ],
)
def test_only_a_demo_that_found_its_leak_passes(code: int | None, said: str, judged: int) -> None:
    assert provisioning.judged(code, said, Path("output")) == judged
