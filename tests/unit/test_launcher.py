"""The launcher in a folder of its own, with every tool that could change the machine faked."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
HARMLESS_TOOLS = (
    *("cat", "chown", "cksum", "cp", "find", "flock", "ln", "mkdir", "mktemp", "mv"),
    *("readlink", "rm", "rmdir", "sed", "sh", "sort", "touch"),
)
# include/uapi/linux/capability.h
_SYS_ADMIN, _PERFMON, _BPF = 21, 38, 39

DEBIAN = 'ID=debian\nVERSION_ID="12"\n'
FAMILIES = {
    "debian": (DEBIAN, "apt-get", "python3-bpfcc python3-venv", "gcc libc6-dev"),
    "ubuntu": (
        "ID=ubuntu\nID_LIKE=debian\n",
        "apt-get",
        "python3-bpfcc python3-venv",
        "gcc libc6-dev",
    ),
    "mint": (
        'ID=linuxmint\nID_LIKE="ubuntu debian"\n',
        "apt-get",
        "python3-bpfcc python3-venv",
        "gcc libc6-dev",
    ),
    "fedora": ("ID=fedora\n", "dnf", "python3-bcc python3", "gcc glibc-devel"),
    "rocky": (
        'ID="rocky"\nID_LIKE="rhel centos fedora"\n',
        "dnf",
        "python3-bcc python3",
        "gcc glibc-devel",
    ),
    "arch": ("ID=arch\n", "pacman", "python-bcc python", "gcc"),
    "endeavouros": ("ID=endeavouros\nID_LIKE=arch\n", "pacman", "python-bcc python", "gcc"),
    "leap": (
        'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n',
        "zypper",
        "python3-bcc python3",
        "gcc glibc-devel",
    ),
    "sles": ('ID="sles"\n', "zypper", "python3-bcc python3", "gcc glibc-devel"),
}

# Every fake notes its call first. $state holds what the faked machine has installed.
PROLOGUE = """#!/bin/sh
state='{state}'
echo "${{0##*/}} $*" >>"$state/calls"
"""
PYTHON = """
case "$*" in
    *find_spec*) [ ! -e "$state/bcc" ] || echo "$state/bcc" ;;
    *ensurepip*) [ -e "$state/venv" ] ;;
    *version_info*) [ ! -e "$state/python-is-old" ] ;;
    *"-m venv"*)
        for folder; do :; done
        mkdir -p "$folder/bin" "$folder/lib/python3.11/site-packages"
        cp "$0" "$folder/bin/python"
        ;;
    *"-m pip"*)
        [ ! -e "$state/pip-fails" ] || { echo "no route to the index" && exit 1; }
        ;;
    "-I -m tracer"*)
        shift 3
        { pwd && printf '<%s>' "$@"; } >"$state/traced"
        ;;
    *) exit 99 ;;
esac
"""
PACKAGE_MANAGER = """
case " $* " in
    *" update "* | *" -Sy "*) touch "$state/lists" ;;
esac
case " $* " in
    *" install "* | *" -S "* | *" -Sy "*) ;;
    *) exit 0 ;;
esac
[ ! -p "$state/inside" ] || { echo >"$state/inside" && read -r _ <"$state/go-on"; }
[ -e "$state/lists" ] || { echo "unknown package" && exit 1; }
case " $* " in
    *" $(cat "$state/unknown" 2>/dev/null || echo none) "*) echo "unknown package" && exit 1 ;;
esac
for package; do
    case $package in
        python*-b*cc) touch "$state/bcc" ;;
        python*) touch "$state/venv" ;;
        gcc) cp "$state/cc" "${0%/*}/cc" ;;
    esac
done
"""
SUDO = """
for argument; do printf '<%s>' "$argument"; done >>"$state/sudo-arguments"
FAKE_UID=0
export FAKE_UID
[ "$1" != -- ] || shift
exec "$@"
"""
FLOCK = """
[ ! -p "$state/at-lock" ] || echo >"$state/at-lock"
exec '{flock}' "$@"
"""


class Machine:
    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "check out"
        self.bin = folder / "bin"
        self.state = folder / "state"
        self.prefix = folder / "prefix"
        for each in (self.checkout, self.bin, self.state):
            each.mkdir()
        for name in ("inotrace", "pyproject.toml"):
            shutil.copy(CHECKOUT / name, self.checkout)
        for name in ("tracer", "bpf"):
            (self.checkout / name).mkdir()
        (self.checkout / "tracer/source.py").write_text("first = 1\n")
        for name in HARMLESS_TOOLS:
            (self.bin / name).symlink_to(shutil.which(name) or name)
        self.launcher = self.checkout / "inotrace"
        self.venv = self.checkout / ".venv"
        self.copy = self.prefix / "lib/inotrace"
        self.link = self.prefix / "bin/inotrace"
        self.os_release(DEBIAN)
        self.may()
        self.has("lists")
        self.fake("python3", PYTHON)
        self.fake("id", 'echo "$FAKE_UID"\n')
        self.fake("dpkg", "")
        shutil.copy(self.fake("cc", ""), self.state / "cc")
        (self.bin / "cc").unlink()
        for name in ("apt-get", "dnf", "pacman", "zypper"):
            self.fake(name, PACKAGE_MANAGER)

    def fake(self, name: str, body: str) -> Path:
        tool = self.bin / name
        tool.unlink(missing_ok=True)
        tool.write_text(PROLOGUE.format(state=self.state) + body)
        tool.chmod(0o755)
        return tool

    def os_release(self, text: str) -> None:
        (self.state / "os-release").write_text(text)

    def may(self, *capabilities: int) -> None:
        """What whoever starts the launcher has, by number."""
        held = sum(1 << each for each in capabilities)
        (self.state / "status").write_text(f"Name:\tsed\nCapPrm:\t{0:016x}\nCapEff:\t{held:016x}\n")

    def has(self, *names: str) -> None:
        for name in names:
            (self.state / name).touch()

    def lacks(self, *names: str) -> None:
        for name in names:
            (self.state / name).unlink()

    def environment(self, uid: int) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "FAKE_UID": str(uid),
            "TMPDIR": str(self.state),
            "INOTRACE_PYTHON": str(self.bin / "python3"),
            "INOTRACE_OS_RELEASE": str(self.state / "os-release"),
            "INOTRACE_STATUS": str(self.state / "status"),
            "INOTRACE_PREFIX": str(self.prefix),
        }

    def begin(self, *arguments: str, uid: int = 0) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.launcher), *arguments],
            env=self.environment(uid),
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, uid: int = 0, cwd: Path | None = None, program: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        for note in ("calls", "traced", "sudo-arguments"):
            (self.state / note).unlink(missing_ok=True)
        return subprocess.run(
            [program or str(self.launcher), *arguments],
            env=self.environment(uid),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=30,
        )

    def note(self, name: str) -> str:
        path = self.state / name
        return path.read_text() if path.exists() else ""

    def traced(self) -> str:
        return self.note("traced").partition("\n")[2]

    def calls(self, *tools: str) -> list[str]:
        return [call for call in self.note("calls").splitlines() if call.split()[0] in tools]

    def changes(self) -> list[str]:
        """The calls that install something."""
        managers = self.calls("apt-get", "dnf", "pacman", "zypper")
        return managers + [
            c for c in self.calls("python", "python3") if "-m pip" in c or "-m venv" in c
        ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """A machine on which everything but a C compiler was installed by an earlier start."""
    assert machine.run("ls").returncode == 0
    return machine


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    return text


@pytest.mark.parametrize("family", FAMILIES)
def test_packages_of_each_family(machine: Machine, family: str) -> None:
    os_release, manager, python_packages, _ = FAMILIES[family]
    machine.os_release(os_release)

    result = machine.run("trace")

    assert result.returncode == 0
    (call,) = machine.calls("apt-get", "dnf", "pacman", "zypper")
    assert call.startswith(manager + " ")
    assert call.endswith(" " + python_packages)
    assert python_packages in one_line(result.stderr)


@pytest.mark.parametrize("family", FAMILIES)
def test_demo_also_installs_a_compiler(machine: Machine, family: str) -> None:
    os_release, manager, _, compiler_packages = FAMILIES[family]
    machine.os_release(os_release)
    machine.has("bcc", "venv")

    assert machine.run("demo").returncode == 0

    (call,) = machine.calls(manager)
    assert call.endswith(" " + compiler_packages)
    assert not machine.run("demo").stderr
    assert machine.changes() == []


@pytest.mark.parametrize("family", FAMILIES)
def test_tests_also_install_the_programs_they_trace(machine: Machine, family: str) -> None:
    os_release, manager, _, _ = FAMILIES[family]
    machine.os_release(os_release)
    machine.fake("node", "")

    assert machine.run("--bootstrap", "test").returncode == 0

    wanted = machine.calls(manager)[-1].split()
    assert {"gdb", "inotify-tools"} < set(wanted)
    assert not [each for each in wanted if each.startswith("node")]
    machine.run("--bootstrap", "test")
    assert machine.changes() == []


def test_a_program_for_tests_that_is_nowhere_to_be_had_does_not_keep_others_away(
    machine: Machine,
) -> None:
    (machine.state / "unknown").write_text("musl-tools")

    result = machine.run("--bootstrap", "test")

    assert result.returncode == 0
    assert result.stderr.endswith("inotrace: no musl-tools: its tests will be skipped\n")
    installed = [call.split()[-1] for call in machine.calls("apt-get")]
    assert installed.index("gdb") < installed.index("musl-tools") < installed.index("nodejs")


def test_options_before_demo_do_not_hide_it(ready: Machine) -> None:
    assert ready.run("--debug", "demo").returncode == 0
    assert ready.calls("apt-get")[0].endswith(" gcc libc6-dev")


def test_other_commands_need_no_compiler(ready: Machine) -> None:
    for arguments in (("trace",), ("demo", "--help"), ("run", "demo")):
        assert ready.run(*arguments).returncode == 0
        assert ready.changes() == []


def test_an_unknown_family_is_told_what_to_install(machine: Machine) -> None:
    machine.os_release("ID=alpine\n")

    result = machine.run("trace")

    assert result.returncode == 1
    assert "alpine" in one_line(result.stderr)
    assert "BCC" in result.stderr
    assert machine.changes() == []


def test_an_unknown_family_that_has_everything_works(machine: Machine) -> None:
    machine.os_release("ID=alpine\n")
    machine.has("bcc", "venv")

    assert machine.run("trace").returncode == 0
    assert machine.traced() == "<trace>"


def test_a_missing_os_release_is_an_unknown_family(machine: Machine) -> None:
    machine.lacks("os-release")
    result = machine.run("trace")
    assert result.returncode == 1
    assert "unknown distribution" in one_line(result.stderr)


def test_lists_are_updated_only_for_an_unknown_package(machine: Machine) -> None:
    machine.lacks("lists")
    assert machine.run("trace").returncode == 0
    assert [call.split()[-1] for call in machine.calls("apt-get")] == [
        "python3-venv",
        "update",
        "python3-venv",
    ]


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    machine.has("venv")
    machine.fake("cc", "")
    assert machine.run("demo").returncode == 0
    (call,) = machine.calls("apt-get")
    assert call.endswith("recommends python3-bpfcc")


def test_an_old_interpreter_is_refused(machine: Machine) -> None:
    machine.has("python-is-old")
    result = machine.run("trace")
    assert result.returncode == 1
    assert "3.9" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("trace", "-n", "two words", ""),
        ("-p", "1"),
        ("--debug",),
        ("--debug", "demo"),
        ("run", "-r", "3", "--", "sh", "-c", 'echo "$HOME" *', "--help"),
        ("run", "ls", "--help"),
        ("--debug", "run", "-f", "json", "ls", "-h"),
        ("events", "-x"),
        ("demo",),
        ("install",),
        ("uninstall",),
    ],
)
def test_sudo_gets_the_exact_arguments(ready: Machine, arguments: tuple[str, ...]) -> None:
    ready.fake("sudo", 'printf \'<%s>\' "$@" >"$state/sudo-arguments"\n')

    assert ready.run(*arguments, uid=1000).returncode == 0

    expected = ["--", str(ready.launcher), *arguments]
    assert ready.note("sudo-arguments") == "".join(f"<{each}>" for each in expected)
    assert ready.changes() == []


@pytest.mark.parametrize("held", [(_BPF, _PERFMON), (_SYS_ADMIN,), range(41)])
def test_who_may_trace_needs_no_sudo(ready: Machine, held: Collection[int]) -> None:
    ready.may(*held)

    result = ready.run("trace", "-d", "1", uid=1000)

    assert (result.returncode, result.stderr) == (0, "")
    assert ready.traced() == "<trace><-d><1>"


@pytest.mark.parametrize("held", [(_BPF,), (_PERFMON,), set(range(41)) - {_PERFMON, _SYS_ADMIN}])
def test_who_may_do_half_of_it_needs_sudo(ready: Machine, held: Collection[int]) -> None:
    ready.may(*held)

    assert "sudo" in one_line(ready.run("trace", uid=1000).stderr)


def test_without_root_and_sudo_it_says_so(ready: Machine) -> None:
    result = ready.run("trace", uid=1000)
    assert result.returncode == 1
    assert "root" in one_line(result.stderr)
    assert ready.traced() == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("-h",),
        ("--version",),
        ("trace", "--help"),
        ("demo", "--help"),
        ("run", "--full-stacks", "-h"),
        ("run", "--help", "ls"),
        ("ls",),
        ("ls", "12"),
        ("--debug", "ls"),
    ],
)
def test_help_and_ls_need_no_root(ready: Machine, arguments: tuple[str, ...]) -> None:
    result = ready.run(*arguments, uid=1000)
    assert (result.returncode, result.stderr) == (0, "")
    assert ready.traced() == "".join(f"<{each}>" for each in arguments)


def test_help_on_a_bare_machine_uses_root_only_to_install(machine: Machine) -> None:
    machine.fake("sudo", SUDO)

    assert machine.run("--help", uid=1000).returncode == 0

    assert machine.note("sudo-arguments") == f"<--><{machine.launcher}><--bootstrap><>"
    assert machine.calls("sudo") != []
    assert machine.traced() == "<--help>"


def test_a_second_start_installs_nothing_and_says_nothing(machine: Machine) -> None:
    first = machine.run("trace")
    assert "installing" in one_line(first.stderr)
    assert machine.changes() != []

    second = machine.run("trace")

    assert (second.returncode, second.stderr) == (0, "")
    assert machine.changes() == []


def test_a_successful_install_leaves_no_log(machine: Machine) -> None:
    assert machine.run("trace").returncode == 0
    assert list(machine.state.glob("inotrace-install.*")) == []


def test_the_venv_belongs_to_the_owner_of_the_checkout(machine: Machine) -> None:
    machine.fake("chown", "")
    assert machine.run("trace").returncode == 0
    assert machine.calls("chown") == [f"chown -R --reference={machine.checkout} {machine.venv}"]


def test_requirements_come_from_pyproject(machine: Machine) -> None:
    assert machine.run("trace").returncode == 0
    (pip,) = [call for call in machine.changes() if "-m pip" in call]
    assert [word.rstrip("=<>.,0123456789") for word in pip.split(" install ")[1].split()] == [
        "click",
        "rich",
    ]


def test_another_requirement_rebuilds_the_venv(ready: Machine) -> None:
    pyproject = ready.checkout / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('    "rich>=', '    "rich>=0,>='))
    assert ready.run("ls").returncode == 0
    assert any("rich>=0" in call for call in ready.changes())


def test_a_moved_checkout_rebuilds_the_venv(ready: Machine) -> None:
    moved = ready.checkout.rename(ready.checkout.parent / "elsewhere")
    assert ready.run("ls", program=str(moved / "inotrace")).returncode == 0
    (pth,) = moved.glob(".venv/lib/python3*/site-packages/*.pth")
    assert pth.read_text() == f"{moved}\n"


def test_a_removed_bcc_is_installed_again(ready: Machine) -> None:
    ready.lacks("bcc")
    assert ready.run("ls").returncode == 0
    assert ready.calls("apt-get")[0].endswith(" python3-bpfcc")


def test_a_failed_install_names_its_log_and_heals(machine: Machine) -> None:
    machine.has("pip-fails")
    failed = machine.run("ls")
    assert failed.returncode == 1
    last = failed.stderr.splitlines()[-1]
    assert "no route to the index" in Path(last.rpartition(" see ")[2]).read_text()
    assert machine.traced() == ""

    machine.lacks("pip-fails")
    assert machine.run("ls").returncode == 0
    assert machine.traced() == "<ls>"


def test_an_unfinished_venv_is_rebuilt(ready: Machine) -> None:
    (ready.venv / "bin/python").unlink()
    (ready.venv / "leftover").touch()
    assert ready.run("ls").returncode == 0
    assert not (ready.venv / "leftover").exists()


def test_a_venv_of_somebody_else_is_left_alone(machine: Machine) -> None:
    (machine.venv / "bin").mkdir(parents=True)
    result = machine.run("ls")
    assert result.returncode == 1
    assert str(machine.venv) in result.stderr.splitlines()[-1]
    assert (machine.venv / "bin").exists()


def test_two_starts_at_once_install_once(machine: Machine) -> None:
    machine.fake("flock", FLOCK.format(flock=shutil.which("flock")))
    pipes = {name: machine.state / name for name in ("at-lock", "inside", "go-on")}
    for pipe in pipes.values():
        os.mkfifo(pipe)

    first = machine.begin("ls")
    hear(pipes["at-lock"])
    hear(pipes["inside"])
    second = machine.begin("ls")
    hear(pipes["at-lock"])
    pipes["go-on"].write_text("\n")

    assert [first.wait(30), second.wait(30)] == [0, 0]
    assert len(machine.calls("apt-get")) == 1
    assert second.communicate()[1] == ""
    first.communicate()


def hear(pipe: Path) -> None:
    """Waits until somebody writes a line into the pipe."""
    descriptor = os.open(pipe, os.O_RDWR)
    try:
        assert select.select([descriptor], [], [], 20)[0], f"nobody came to {pipe.name}"
        os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def test_it_works_through_a_link_and_stays_in_its_folder(ready: Machine, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to("../check out/inotrace")

    for program in ("./link", "../check out/inotrace", str(elsewhere / "link")):
        assert ready.run("ls", cwd=elsewhere, program=program).returncode == 0
        assert ready.note("traced") == f"{elsewhere}\n<ls>"
        assert ready.changes() == []


def test_the_venv_is_readable_for_others(machine: Machine) -> None:
    before = os.umask(0o077)
    try:
        assert machine.run("ls").returncode == 0
    finally:
        os.umask(before)
    assert machine.venv.stat().st_mode & 0o777 == 0o755
    assert (machine.venv / ".inotrace").stat().st_mode & 0o777 == 0o644


def test_install_twice_then_uninstall_twice(machine: Machine) -> None:
    first = machine.run("install")
    assert first.returncode == 0
    assert machine.link.resolve() == (machine.copy / "bin/inotrace").resolve()
    assert any(call.endswith(f" install {machine.checkout}") for call in machine.changes())

    second = machine.run("install")
    assert second.returncode == 0
    assert "up to date" in one_line(second.stderr)
    assert machine.changes() == []

    assert "removed" in one_line(machine.run("uninstall").stderr)
    assert not machine.link.is_symlink()
    assert not machine.copy.exists()

    again = machine.run("uninstall")
    assert again.returncode == 0
    assert "nothing" in one_line(again.stderr)


def test_install_follows_a_changed_source(machine: Machine) -> None:
    assert machine.run("install").returncode == 0
    (machine.checkout / "tracer/source.py").write_text("second = 2\n")
    assert machine.run("install").returncode == 0
    assert machine.changes() != []


def test_install_does_not_replace_what_it_did_not_make(machine: Machine) -> None:
    machine.link.parent.mkdir(parents=True)
    machine.link.write_text("somebody else's")
    result = machine.run("install")
    assert result.returncode == 1
    assert str(machine.link) in one_line(result.stderr)
    assert machine.link.read_text() == "somebody else's"


def test_uninstall_keeps_a_link_that_somebody_replaced(machine: Machine) -> None:
    assert machine.run("install").returncode == 0
    machine.link.unlink()
    machine.link.write_text("somebody else's")

    assert machine.run("uninstall").returncode == 0

    assert machine.link.exists()
    assert not machine.copy.exists()


def test_uninstall_keeps_a_folder_that_somebody_replaced(machine: Machine) -> None:
    assert machine.run("install").returncode == 0
    (machine.copy / ".inotrace").unlink()

    assert machine.run("uninstall").returncode == 0

    assert not machine.link.is_symlink()
    assert machine.copy.exists()


def test_uninstall_removes_only_what_it_made(machine: Machine) -> None:
    machine.link.parent.mkdir(parents=True)
    machine.link.write_text("somebody else's")
    machine.copy.mkdir(parents=True)
    (machine.copy / "data").touch()

    assert machine.run("uninstall").returncode == 0

    assert machine.link.exists()
    assert (machine.copy / "data").exists()


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_install_has_help_and_takes_no_arguments(machine: Machine, command: str) -> None:
    helped = machine.run(command, "--help", uid=1000)
    assert helped.returncode == 0
    assert str(machine.link) in one_line(helped.stdout)

    wrong = machine.run(command, "now")
    assert wrong.returncode == 2
    assert not machine.copy.exists()
