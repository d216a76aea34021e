"""The commands on a baseline of fixed models: it is a folder, and needs no run (docs/regression.md)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.output import number

if TYPE_CHECKING:
    from harness.regression.fixed.check import FixedReport, FixedVerdict

HEADER = ("cell", "verdict", "compared", "changed", "near-ties", "largest difference")


def check(folder: Path, allow_code_execution: bool) -> FixedReport:
    """Measure what the code does with the models of a folder, and compare it with the folder's baseline."""
    from harness.regression.fixed.baseline import measure, read_fixed_baseline
    from harness.regression.fixed.check import check_fixed
    from harness.regression.fixed.folder import FixedFolder
    from harness.regression.fixed.outputs import LogitGaps

    fixed = FixedFolder(folder)
    fixed.require()
    baseline = read_fixed_baseline(fixed)
    behaviour = measure(fixed, allow_code_execution=allow_code_execution, told=_told)
    return check_fixed(baseline, behaviour, LogitGaps(fixed))


def update(folder: Path, reason: str, allow_code_execution: bool) -> list[str]:
    """Write what the code does now as the folder's baseline. Returns what changes, a line a cell; nothing is written if that is nothing."""
    from harness.regression.fixed.baseline import (
        fixed_changes,
        make_fixed_baseline,
        measure,
        read_fixed_baseline,
        write_fixed_baseline,
    )
    from harness.regression.fixed.folder import FixedFolder

    fixed = FixedFolder(folder)
    before = read_fixed_baseline(fixed, any_files=True) if fixed.baseline.exists() else None
    behaviour = measure(fixed, allow_code_execution=allow_code_execution, told=_told)
    after = make_fixed_baseline(fixed, behaviour, reason)
    lines = fixed_changes(before, after)
    if lines:
        write_fixed_baseline(fixed, after)
    return lines


def make_models(folder: Path) -> None:
    """Train the models of a new folder, and write its texts."""
    from harness.regression.fixed.make import make_models as make

    make(folder, lambda line: click.echo(line, err=True))


def row(cell: FixedVerdict) -> tuple[str, ...]:
    """A line of the table."""
    counts = (str(cell.compared), str(cell.changed), str(cell.ties))
    return (cell.name, cell.verdict, *counts, number(cell.largest, ".2g"))


def _told(part: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[2K{part}", err=True, nl=False)
