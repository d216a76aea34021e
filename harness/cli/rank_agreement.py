"""`harness rank-agreement`: whether methods keep their ranking along an axis, such as the number of steps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.options import PATH, json_option
from harness.cli.output import interval, number, print_json, print_table
from harness.results.load import load_results
from harness.tables.rank_agreement import rank_agreement

EPILOG = """\b
Examples:
  harness run --matrix settling --allow-code-execution
  harness rank-agreement runs/settling
  harness rank-agreement runs/mine --axis learning_rate --json

\b
tau: Kendall's, 1 for the same order, 0 for unrelated ones, of the means over seeds. Seeds apart: the mean tau of two seeds,
one at A and one at B. Seeds alike: of two seeds at the same value. Where both are the same, noise explains the changes."""

HEADER = ("teacher", "student", "task", "A", "B", "methods", "seeds", "items", "tau", "95 % interval", "seeds apart",
          "seeds alike", "best at A", "best at B")  # fmt: skip


@click.command("rank-agreement", epilog=EPILOG)
@click.argument("results", type=PATH, metavar="DIR")
@click.option(
    "--axis", default="steps", show_default=True, help="What names of methods say before a value: kd+steps-300."
)
@json_option
def command(results: Path, axis: str, as_json: bool) -> None:
    """Compare the rankings of methods at every two values of an axis, with Kendall's rank correlation and its interval."""
    loaded = load_results(results)
    rows, notes = rank_agreement(loaded, axis)
    for problem in loaded.problems:
        click.echo(f"problem: {problem}", err=True)
    if as_json:
        print_json({"schema_version": 1, "axis": axis, "rows": [asdict(row) for row in rows], "notes": notes})
        return
    print_table(
        HEADER,
        (
            [
                row.teacher,
                row.student,
                row.task,
                row.a,
                row.b,
                str(len(row.order_a)),
                str(row.seeds),
                str(row.items),
                number(row.tau),
                interval(row.ci95),
                number(row.across),
                number(row.within),
                row.order_a[0],
                row.order_b[0],
            ]
            for row in rows
        ),
    )
    for note in notes:
        click.echo(f"note: {note}", err=True)
