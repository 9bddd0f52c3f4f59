"""Which part of the program may know which: what DESIGN calls the layout."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = _ROOT / "tracer"
_FILES = sorted(_PACKAGE.rglob("*.py"))

_IMPORT_ALL_BLOCKED = """
import importlib, sys
for name in {blocked!r}:
    sys.modules[name] = None
for name in {modules!r}:
    importlib.import_module(name)
loaded = {{name.partition(".")[0] for name, found in sys.modules.items() if found}}
assert loaded.isdisjoint({blocked!r}), loaded
"""


def _module(path: Path) -> str:
    parts = path.relative_to(_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    """Every module imported anywhere in the file, and what is imported from it as module.name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _importers(package: str) -> set[str]:
    return {
        _module(path) for path in _FILES if any(_within(name, package) for name in _imports(path))
    }


def _modules(package: str) -> list[str]:
    return [name for name in map(_module, _FILES) if _within(name, package)]


def test_there_is_something_to_check() -> None:
    assert len(_modules("tracer.core")) > 5
    assert len(_modules("tracer.views")) > 5
    assert "tracer.kernel.probe" in _importers("bcc")
    assert "tracer.cli.app" in _importers("click")


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        ("tracer.core", ("bcc", "click", "rich")),
        ("tracer.views", ("bcc", "click")),
    ],
)
def test_core_and_views_are_imported_without_the_rest(
    package: str, blocked: tuple[str, ...]
) -> None:
    code = _IMPORT_ALL_BLOCKED.format(blocked=blocked, modules=_modules(package))

    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.version_info < (3, 10), reason="no list of the standard library")
def test_core_imports_the_standard_library_and_itself_only() -> None:
    for path in (_PACKAGE / "core").rglob("*.py"):
        foreign = {
            name
            for name in _imports(path)
            if not _within(name, "tracer.core")
            and name.partition(".")[0] not in sys.stdlib_module_names
        }
        assert foreign == set(), path


@pytest.mark.parametrize(
    ("package", "layer"),
    [("bcc", "tracer.kernel"), ("click", "tracer.cli"), ("tracer.cli", "tracer.cli")],
)
def test_only_one_layer_knows_it(package: str, layer: str) -> None:
    beyond = {name for name in _importers(package) if not _within(name, layer)}

    # the console script's entry
    assert beyond - {"tracer.__main__"} == set()


def test_views_know_neither_the_kernel_nor_the_session_nor_the_ledger() -> None:
    forbidden = (
        "tracer.kernel",
        "tracer.session",
        "tracer.feed",
        "tracer.snapshot",
        "tracer.core.ledger",
    )
    for path in (_PACKAGE / "views").rglob("*.py"):
        known = {name for name in _imports(path) for part in forbidden if _within(name, part)}
        assert known == set(), path


def test_the_kernel_side_knows_no_views() -> None:
    for folder in ("kernel", "stacks", "targets"):
        for path in (_PACKAGE / folder).rglob("*.py"):
            known = {
                name
                for name in _imports(path)
                if _within(name, "tracer.views") or _within(name, "rich")
            }
            assert known == set(), path
