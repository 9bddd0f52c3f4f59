"""What is read from a guest: how it ended, its tests, its kernel's messages."""

from __future__ import annotations

from pathlib import Path

import guest
import pytest
from guest import exit_code
from results import FAILED, PASSED, SKIPPED, JunitCase, Results, cases_of, doctor_of, read, troubles

_JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" tests="4">
<testcase classname="tests.kernel.test_walk" name="test_one[fentry]" time="1.5" />
<testcase classname="tests.kernel.test_walk" name="test_two" time="0.25">
  <failure message="assert 1 == 2&#10;and more">long</failure></testcase>
<testcase classname="tests.kernel.test_run" name="test_three" time="0">
  <skipped type="pytest.skip" message="needs user namespaces">at</skipped></testcase>
<testcase classname="" name="tests/kernel/test_bad.py" time="0">
  <error message="collection failure">ImportError</error></testcase>
</testsuite></testsuites>
"""
_RESULTS = [
    JunitCase("test_walk::test_one[fentry]", PASSED, 1.5),
    JunitCase("test_walk::test_two", FAILED, 0.25, "assert 1 == 2"),
    JunitCase("test_run::test_three", SKIPPED, 0.0, "needs user namespaces"),
    JunitCase("collection::tests/kernel/test_bad.py", FAILED, 0.0, "collection failure"),
]


# --- how it ended ---


def test_the_last_line_says_how_the_tests_ended() -> None:
    assert exit_code("5 passed\ninotrace-guest: exit code 0\n") == 0
    assert exit_code("1 failed\r\ninotrace-guest: exit code 1\r\n") == 1


@pytest.mark.parametrize(
    "said", ["", "5 passed\n", "inotrace-guest: exit code \n", "E  'inotrace-guest: exit code 0'"]
)
def test_a_guest_that_did_not_say_so_did_not_end(said: str) -> None:
    assert exit_code(said) is None


# --- tests ---


def test_every_test_is_read_with_its_outcome_and_first_reason() -> None:
    assert cases_of(_JUNIT) == _RESULTS


def test_a_guest_passed_only_if_all_is_well() -> None:
    good = Results(0, [JunitCase("a::b", PASSED, 1.0)], [], {"checks": []})

    assert good.passed
    assert not good._replace(exit_code=1).passed
    assert not good._replace(exit_code=None).passed
    assert not good._replace(trouble=["BUG: bad"]).passed
    assert not good._replace(tests=[JunitCase("a::b", PASSED, 1.0), _RESULTS[1]]).passed


def test_a_guest_that_proved_nothing_did_not_pass() -> None:
    good = Results(0, [JunitCase("a::b", PASSED, 1.0)], [], {"checks": []})

    assert good.flaws == []
    for bad, flaw in (
        (good._replace(exit_code=None), "the guest ended without a result"),
        (good._replace(exit_code=3), "pytest ended with 3"),
        (good._replace(tests=[]), "no test passed"),
        (good._replace(tests=[_RESULTS[2]]), "no test passed"),
        (good._replace(doctor={}), "doctor said nothing that can be read"),
    ):
        assert (bad.flaws, bad.passed) == ([flaw], False)


# --- the kernel ---


def test_bugs_and_warnings_of_the_kernel_are_found() -> None:
    messages = (
        "[    0.1] Linux version 6.1\n"
        "[    0.2] [Firmware Bug]: TSC doesn't count\n"
        "[    9.0] WARNING: CPU: 1 PID: 7 at kernel/bpf/trampoline.c:11\n"
        "[   10.0] BUG: unable to handle page fault\n"
        "[   11.0] nothing to warn of; DEBUG: no\n"
    )

    assert [line.split("] ", 1)[1].split(":")[0] for line in troubles(messages)] == [
        "WARNING",
        "BUG",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "[    9.0] kernel BUG at mm/slub.c:448!",
        "[    9.0] Oops: 0002 [#1] PREEMPT SMP NOPTI",
        "[    9.0] general protection fault: 0000 [#1] SMP",
        "[    9.0] general protection fault, probably for non-canonical address 0xdead: 0000 [#1]",
        "[    9.0] Kernel panic - not syncing: Fatal exception",
        "[    9.0] rcu: INFO: rcu_sched self-detected stall on CPU",
        "[    9.0] refcount_t: underflow; use-after-free.",
    ],
)
def test_every_word_of_the_kernel_for_trouble_is_known(line: str) -> None:
    assert troubles(f"[    0.1] Linux version 6.1\r\n{line}\r\n[   10.0] more\r\n") == [line]


def test_harmless_lines_are_no_trouble() -> None:
    assert not troubles(
        "[    0.0] Kernel command line: console=ttyS0 quiet panic=-1 oops=panic\n"
        '[    2.2] PCI: if necessary, use "pci=nocrs" and report a bug\n'
        "[    9.0] traps: cc1[99] general protection fault ip:7f00 sp:7ffe error:0 in libc.so.6\n"
    )


def test_a_guest_ends_at_an_oops_but_not_at_a_warning() -> None:
    given = guest._KERNEL_ARGUMENTS.split()

    assert "oops=panic" in given
    assert not [each for each in given if each.startswith("panic_on_warn")]


# --- a whole folder ---


def test_a_folder_with_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(_JUNIT)
    (tmp_path / "dmesg").write_text("[1.0] WARNING: something\n")
    (tmp_path / "doctor.json").write_text('{"mode": "fentry", "checks": []}')
    found = read(tmp_path, 1)

    assert (found.exit_code, found.tests) == (1, _RESULTS)
    assert found.trouble == ["[1.0] WARNING: something"]
    assert found.doctor == {"mode": "fentry", "checks": []}
    assert [found.count(each) for each in (PASSED, FAILED, SKIPPED)] == [1, 2, 1]


def test_of_a_kernel_that_crashed_the_console_tells(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("[2.0] BUG: kernel NULL pointer dereference\r\n")

    assert read(tmp_path, None).trouble == ["[2.0] BUG: kernel NULL pointer dereference"]


def test_console_and_dmesg_are_read_both(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("[2.0] Oops: 0000 [#1]\r\n[3.0] BUG: both\r\n")
    (tmp_path / "dmesg").write_text("[3.0] BUG: both\n[4.0] WARNING: only in dmesg\n")

    assert read(tmp_path, 0).trouble == [
        "[2.0] Oops: 0000 [#1]",
        "[3.0] BUG: both",
        "[4.0] WARNING: only in dmesg",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "Traceback", "null", "[]", "1", '{"mode": "x"}', '{"checks": [1]}', '{"checks": [{}]}'],
)
def test_a_doctor_that_failed_says_nothing(text: str) -> None:
    assert doctor_of(text) == {}
