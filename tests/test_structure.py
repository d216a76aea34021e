"""Rules of this folder, read from its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT, TESTS

TEST_FILES = sorted(TESTS.rglob("test_*.py"))
NOT_IMPORTABLE = {path.stem for path in TEST_FILES} | {"conftest"}


def _imported(path: Path) -> Iterator[str]:
    """The dotted names of all modules that a file may import, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_imports_a_test_file(path: Path) -> None:
    found = [name for name in _imported(path) if NOT_IMPORTABLE & set(name.split("."))]
    assert not found, f"what tests share belongs in tests/helpers, fixtures in a conftest.py: {found}"


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_changes_the_path_of_imports(path: Path) -> None:
    uses = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)]
    assert "sys.path" not in {ast.unparse(node) for node in uses}


def test_a_name_fits_the_line_that_pytest_prints() -> None:
    for path in TEST_FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert [name for name in names if len(name) > 100] == [], path


def test_imports_go_down_only_and_in_no_circle() -> None:
    """The contracts of import-linter in pyproject.toml; in a process of its own, as it disables all loggers of its process."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def _own_imports(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if name.split(".")[0] in {"dskd", "harness"})


@pytest.mark.parametrize("package", ["dskd", "harness"])
def test_own_modules_are_imported_at_the_top(package: str) -> None:
    """Inside functions only where a command starts, so that `harness --help` imports none of them."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.parent == ROOT / "harness" / "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found += [f"{path.relative_to(ROOT)}:{node.name}: {name}" for name in _own_imports(node)]
    assert found == []


# Where this Python is started: by the functions that keep it from importing out of the working directory, and in the sandbox.
STARTS_PYTHON = {
    "dskd/processes.py": "python_module, with -P",
    "harness/sandbox/isolation/base.py": "the sandbox's interpreter, with PYTHON_OPTIONS",
    "harness/sandbox/probes.py": "a program that runs in the sandbox",
    "harness/executors/_ray_task.py": "the interpreter of another node, for a command of python_module",
}
PROCESSES = [
    path for package in ("dskd", "harness", "tests/benchmarks") for path in sorted((ROOT / package).rglob("*.py"))
]


def _starts_module(node: ast.AST) -> bool:
    """Whether this is a command `python -m` that may import from the working directory."""
    given = node.elts if isinstance(node, (ast.List, ast.Tuple)) else []
    words = [each.value for each in given if isinstance(each, ast.Constant)]
    return "-m" in words and "-P" not in words


def test_python_is_started_where_nothing_is_imported_from_the_working_directory() -> None:
    """A user's `datasets.py` or `random.py` there would take the place of the library, in every process of ours."""
    found = []
    for path in PROCESSES:
        name, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        found += [f"{name}:{node.lineno}: -m without -P" for node in nodes if _starts_module(node)]
        if name not in STARTS_PYTHON and not name.startswith("tests/"):
            names = [
                node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.executable"
            ]
            found += [f"{name}:{node.lineno}: sys.executable; use dskd.processes.python_module" for node in names]
    assert found == []


def test_spawned_processes_are_started_among_safe_children() -> None:
    """`multiprocessing` starts an interpreter that imports from the working directory, unless its environment says otherwise."""
    found = []
    for path in PROCESSES:
        text = path.read_text(encoding="utf-8")
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        spawns = [
            call
            for call in calls
            if (
                ast.unparse(call.func).endswith(("get_context", "set_start_method"))
                and "fork'" not in ast.unparse(call)
            )
            or ast.unparse(call.func) == "mp.spawn"
        ]
        found += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in spawns if "with safe_children():" not in text]
    assert found == [], "start them inside dskd.processes.safe_children"


def test_the_rule_for_started_processes_sees_one_that_breaks_it() -> None:
    broken = ast.parse(
        'subprocess.run([sys.executable, "-m", "harness.jobs"]); subprocess.run([python, "-P", "-m", "x"])'
    )
    assert [_starts_module(node) for node in ast.walk(broken) if isinstance(node, ast.List)] == [True, False]
