"""`harness baseline`: makes the file that regression checks compare with."""

from __future__ import annotations

from pathlib import Path

import click

from dskd.errors import InputError
from harness.cli import _fixed_models
from harness.cli.options import PATH, sandbox_options
from harness.regression.baseline import changes, make_baseline, read_baseline, read_run, write_baseline
from harness.runs.store import require_writable

EPILOG = """\b
Examples:
  harness baseline update runs/regression --baseline baseline.json --reason "first baseline"
  harness baseline update runs/regression --baseline baseline.json --reason "AdamW's epsilon as in the paper"
  harness baseline make-models results/regression/fixed
  harness baseline update --baseline results/regression/fixed --reason "first baseline" --allow-code-execution

\b
Commit the file: its diff shows which items changed. `harness check` compares a run with it (docs/regression.md)."""


@click.group("baseline", epilog=EPILOG)
def command() -> None:
    """Make or update the file of scores that `harness check` compares with."""


@command.command("update", epilog=EPILOG)
@click.argument("run", required=False, type=PATH)
@click.option(
    "--baseline",
    "path",
    required=True,
    type=PATH,
    metavar="FILE|DIR",
    help="The file to write, or a folder of fixed models.",
)
@click.option("--reason", required=True, metavar="TEXT", help="Why the baseline changes; stored in the file.")
@sandbox_options
def update(run: Path | None, path: Path, reason: str, allow_code_execution: bool) -> None:
    """Write the scores of RUN, the folder of a run, as the new baseline, and print the changes.

    The run must be complete: no missing and no failed records. Without RUN the baseline is a folder of fixed models, and what the
    code does with them now is written.
    """
    if run is None:
        _update_fixed(path, reason, allow_code_execution)
        return
    if path.is_dir():
        raise InputError(f"--baseline {path}: is a folder, which needs no run; fix: leave out {run}")
    require_writable(path.parent, f"--baseline {path}")
    before = read_baseline(path) if path.exists() else None
    after = make_baseline(run, read_run(run), reason)
    lines = changes(before, after)
    if before is not None and not lines:
        click.echo(f"{path}: nothing changed", err=True)
        return
    write_baseline(path, after)
    for line in lines:
        click.echo(line)
    click.echo(f"{path}: written; commit it", err=True)


@command.command("make-models", epilog=EPILOG)
@click.argument("folder", type=PATH, metavar="DIR")
def make_models(folder: Path) -> None:
    """Train three small models on the small world into a new folder, for `update` and `check` without a run. Takes a minute."""
    require_writable(folder.parent, str(folder))
    _fixed_models.make_models(folder)


def _update_fixed(folder: Path, reason: str, allow_code_execution: bool) -> None:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: is no folder of fixed models; fix: give RUN, or harness baseline make-models {folder}"
        )
    require_writable(folder, f"--baseline {folder}")
    lines = _fixed_models.update(folder, reason, allow_code_execution)
    for line in lines:
        click.echo(line)
    click.echo(f"{folder}: {'written; commit it' if lines else 'nothing changed'}", err=True)
