"""`harness check`: a run against a baseline, for continuous integration."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dskd.errors import InputError
from harness.cli.options import split_assignment

if TYPE_CHECKING:
    from harness.regression.check import Cell, Goldens, Report, Verdict

EPILOG = """\b
Examples:
  harness check runs/regression --baseline baseline.json
  harness check runs/regression --baseline baseline.json --margin 3 --margin rouge_l=0.5
  harness check --results runs/regression --baseline baseline.json --strict
  harness check runs/regression --baseline baseline.json --markdown summary.md --json > check.json

\b
Exit codes: 0 pass, or inconclusive with a warning on standard error; 1 regress; 2 incomplete, or something given is wrong;
3 inconclusive, with --strict.
Verdicts, margins and what to do about each: docs/regression.md."""

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "regress": 1, "incomplete": 2, "inconclusive": 3}
HEADER = (
    "cell",
    "verdict",
    "baseline",
    "run",
    "difference",
    "95 % interval",
    "p (worse)",
    "items",
    "seeds",
    "outputs changed",
)


@click.command("check", epilog=EPILOG)
@click.argument("run", required=False, type=click.Path(path_type=Path), metavar="[RUN]")
@click.option("--results", type=click.Path(path_type=Path), metavar="DIR", help="The same as RUN.")
@click.option(
    "--baseline", "path", required=True, type=click.Path(path_type=Path), metavar="FILE", help="What to compare with."
)
@click.option(
    "--margin",
    "margins",
    multiple=True,
    metavar="[METRIC=]POINTS",
    help="The drop that has to be exceeded to count: for all metrics, for one, or for a kind (binary, continuous); repeatable. "
    "Without it 2 for binary ones and 1 for continuous ones.",
)
@click.option(
    "--goldens",
    type=click.Choice(["auto", "strict", "warn"]),
    default="auto",
    show_default=True,
    help="Where changed outputs fail by themselves: where settings, versions, processor and threads are the baseline's, so that "
    "only the code can have done it; everywhere; nowhere.",
)
@click.option("--strict", is_flag=True, help="Exit with 3 where the verdict is inconclusive.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write the table as Markdown, for a job's summary or a comment.",
)
@click.pass_context
def command(
    context: click.Context,
    run: Path | None,
    results: Path | None,
    path: Path,
    margins: tuple[str, ...],
    goldens: Goldens,
    strict: bool,
    as_json: bool,
    markdown: Path | None,
) -> None:
    """Compare RUN, a run's folder or another baseline file, with a baseline; exit with 1 where a cell got worse."""
    from harness.cli.output import print_table
    from harness.regression.baseline import read_baseline, read_run
    from harness.regression.check import check
    from harness.runs.store import require_writable, write_text_atomic

    if (run is None) == (results is None):
        raise InputError("check: give one run, as RUN or with --results")
    run = run or results
    assert run is not None
    if markdown is not None:
        require_writable(markdown.parent, f"--markdown {markdown}")
    report = check(read_baseline(path), read_run(run), margins=_margins(margins), goldens=goldens)
    if markdown is not None:
        write_text_atomic(markdown, as_markdown(report))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print_table(HEADER, [_row(cell) for cell in report.cells])
    for line in _remarks(report):
        click.echo(line, err=True)
    context.exit(EXIT_CODES[report.verdict] if strict or report.verdict != "inconclusive" else 0)


def _margins(texts: tuple[str, ...]) -> dict[str, float]:
    """By metric or kind; a number alone stands for both kinds."""
    found = {}
    for text in texts:
        name, value = split_assignment(text, "--margin") if "=" in text else ("", text)
        try:
            points = float(value)
        except ValueError:
            points = math.nan
        if not 0 <= points <= 100:
            raise InputError(
                f"--margin {text}: is no number of points; fix: a number from 0 to 100, as 2 or rouge_l=0.5"
            )
        found.update({name: points} if name else {"binary": points, "continuous": points})
    return found


def as_markdown(report: Report) -> str:
    """The report for people who review a change: a table, the reasons, the notes."""
    lines = [f"### Regression check: {report.verdict}", "", _summary(report), "", f"| {' | '.join(HEADER)} |"]
    lines.append(f"|{'---|' * 2}{'---:|' * (len(HEADER) - 2)}")
    lines += [f"| {' | '.join(_row(cell))} |" for cell in report.cells]
    remarks = [f"- {line}" for line in _remarks(report)[:-1]]
    return "\n".join([*lines, *([""] if remarks else []), *remarks, ""])


def _row(cell: Cell) -> tuple[str, ...]:
    interval = "–" if cell.ci95 is None else f"{cell.ci95[0]:+.2f} to {cell.ci95[1]:+.2f}"
    return (
        cell.name,
        cell.verdict,
        _number(cell.baseline),
        _number(cell.run),
        _number(cell.difference, "+.2f"),
        interval,
        _number(cell.p_value, ".2g"),
        str(cell.items),
        str(cell.seeds),
        str(len(cell.changed)),
    )


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)


def _remarks(report: Report) -> list[str]:
    """Every reason and note in a line, and the sum in the last one."""
    words = {
        "regress": "regress",
        "incomplete": "incomplete",
        "inconclusive": "warning: inconclusive",
        "pass": "note",
    }
    lines = [f"{words[cell.verdict]}: {cell.name}: {reason}" for cell in report.cells for reason in cell.reasons]
    return [*lines, *(f"note: {note}" for note in report.notes), _summary(report)]


def _summary(report: Report) -> str:
    counts = Counter(cell.verdict for cell in report.cells)
    told: list[Verdict] = ["pass", "inconclusive", "regress"]
    if counts["incomplete"]:
        told.append("incomplete")
    return f"{len(report.cells)} cells: {', '.join(f'{counts[verdict]} {verdict}' for verdict in told)}"
