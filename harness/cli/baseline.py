"""`harness baseline`: makes the file that regression checks compare with."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.options import PATH
from harness.regression.baseline import changes, make_baseline, read_baseline, read_run, write_baseline
from harness.runs.store import require_writable

EPILOG = """\b
Examples:
  harness baseline update runs/regression --baseline baseline.json --reason "first baseline"
  harness baseline update runs/regression --baseline baseline.json --reason "AdamW's epsilon as in the paper"

\b
Commit the file: its diff shows which items changed. `harness check` compares a run with it (docs/regression.md)."""


@click.group("baseline", epilog=EPILOG)
def command() -> None:
    """Make or update the file of scores that `harness check` compares with."""


@command.command("update", epilog=EPILOG)
@click.argument("run", type=PATH)
@click.option("--baseline", "path", required=True, type=PATH, metavar="FILE", help="The file to write.")
@click.option("--reason", required=True, metavar="TEXT", help="Why the baseline changes; stored in the file.")
def update(run: Path, path: Path, reason: str) -> None:
    """Write the scores of RUN, the folder of a run, as the new baseline, and print the changes.

    The run must be complete: no missing and no failed records.
    """
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
