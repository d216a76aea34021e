"""What is installed from a wheel works in an empty folder, without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dskd
from helpers.paths import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, nothing else of the project in sight."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = folder.glob("dskd_harness-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _harness(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # An editable install puts the checkout on the path by a .pth file, after PYTHONPATH: the wheel's own modules come first.
    environment = {**os.environ, "PYTHONPATH": str(site)}
    environment.pop("HARNESS_DATA", None)
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_tasks_matrices_and_packages_are_inside(site: Path) -> None:
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {
        "harness/_tasks/gsm8k/task.py",
        "harness/_tasks/humaneval/task.py",
        "harness/_tasks/dolly/README.md",
    } <= names
    assert {
        "harness/config/matrices/quick.yaml",
        "harness/config/matrices/real-cpu.yaml",
        "dskd/methods/dskd_v2.py",
    } <= names
    assert {
        "harness/report/assets/page.html",
        "harness/report/assets/main.js",
        "harness/report/assets/page.css",
    } <= names
    assert "harness/_citation.cff" in names
    assert {"dskd/py.typed", "harness/py.typed", "dskd/__init__.pyi", "dskd/methods/dskd_v2.py"} <= names
    assert not [name for name in names if name.startswith(("tests/", "runs/", "tasks/"))]


def test_the_version_of_the_wheel_is_that_of_the_package(site: Path) -> None:
    (metadata,) = site.glob("dskd_harness-*.dist-info/METADATA")
    (version,) = [line for line in metadata.read_text(encoding="utf-8").splitlines() if line.startswith("Version: ")]
    assert version == f"Version: {dskd.__version__}"


def test_commands_work_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [sys.executable, "-c", "import harness, harness.tasks as t; print(harness.__file__, t.tasks_folder())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.count(str(site)) == 2, where
    listed = _harness(site, tmp_path, "list", "tasks")
    assert listed.returncode == 0, listed.stderr
    assert "gsm8k" in listed.stdout
    planned = _harness(site, tmp_path, "plan", "--matrix", "quick")
    assert planned.returncode == 0, planned.stderr
    assert "dskd-v2-eta" in planned.stdout
    assert list(tmp_path.iterdir()) == []
