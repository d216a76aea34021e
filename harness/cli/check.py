"""`harness check`: compares a run, or the code itself, with a baseline, for continuous integration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dskd.errors import InputError
from harness.cli import _fixed_models
from harness.cli.options import FILE, PATH, json_option, sandbox_options, split_assignment
from harness.cli.output import interval, number, print_json, print_table
from harness.regression.baseline import read_baseline, read_run
from harness.regression.check import CellVerdict, CheckReport, ExactOutputs, Verdict, check_run
from harness.runs.store import require_writable, write_text_atomic

if TYPE_CHECKING:
    from harness.regression.fixed.check import FixedReport

EPILOG = """\b
Examples:
  harness check runs/regression --baseline baseline.json
  harness check runs/regression --baseline baseline.json --margin 3 --margin rouge_l=0.5
  harness check runs/regression --baseline baseline.json --strict
  harness check runs/regression --baseline baseline.json --markdown summary.md --json > check.json
  harness check --baseline results/regression/fixed --allow-code-execution

\b
Exit codes: 0 pass, or inconclusive with a warning on standard error; 1 regress; 2 incomplete, or wrong input; 3 inconclusive,
with --strict. docs/regression.md explains verdicts and margins."""

# The old values of --goldens.
GOLDENS: dict[str, ExactOutputs] = {"auto": "auto", "strict": "always", "warn": "never"}
EXACT_OUTPUTS = click.Choice(["auto", "always", "never"])
MARGIN_HELP = (
    "Largest drop in points that does not count; for all metrics, one metric, or a kind (binary, continuous). Repeatable. "
    "Default: 2 for binary metrics, 1 for continuous ones."
)
EXACT_OUTPUTS_HELP = (
    "Whether changed outputs alone are a regression. auto: if settings, versions, processor and threads are those of the "
    "baseline, so that only the code can be the reason."
)
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "regress": 1, "incomplete": 2, "inconclusive": 3}
SCORES = ("baseline", "run", "difference", "95 % interval", "p (worse)")
HEADER = ("cell", "verdict", *SCORES, "items", "seeds", "outputs changed")


@click.command("check", epilog=EPILOG)
@click.argument("run", required=False, type=PATH, metavar="RUN")
@click.option("--results", type=PATH, hidden=True, help="The same as RUN.")
@click.option(
    "--baseline",
    "path",
    required=True,
    type=PATH,
    metavar="FILE|DIR",
    help="The baseline file, or a folder of fixed models.",
)
@click.option("--margin", "margins", multiple=True, metavar="[METRIC=]POINTS", help=MARGIN_HELP)
@click.option("--exact-outputs", type=EXACT_OUTPUTS, default="auto", show_default=True, help=EXACT_OUTPUTS_HELP)
@click.option("--goldens", type=click.Choice(list(GOLDENS)), hidden=True, help="Old name of --exact-outputs.")
@sandbox_options
@click.option("--strict", is_flag=True, help="Exit with 3 if the verdict is inconclusive.")
@json_option
@click.option("--markdown", type=FILE, metavar="FILE", help="Also write the table as Markdown, as for a job summary.")
@click.pass_context
def command(
    context: click.Context,
    run: Path | None,
    results: Path | None,
    path: Path,
    margins: tuple[str, ...],
    exact_outputs: ExactOutputs,
    goldens: str | None,
    allow_code_execution: bool,
    strict: bool,
    as_json: bool,
    markdown: Path | None,
) -> None:
    """Compare RUN, the folder of a run or another baseline file, with a baseline. Exit with 1 if a cell is worse.

    Without RUN the baseline is a folder of small models and texts that do not change: what the code does with them is compared, on
    any processor (docs/regression.md).
    """
    if markdown is not None:
        require_writable(markdown.parent, f"--markdown {markdown}")
    exact_outputs = GOLDENS[goldens] if goldens else exact_outputs
    report: CheckReport | FixedReport
    if path.is_dir():
        if run is not None or results is not None or margins or exact_outputs != "auto":
            raise InputError(
                f"--baseline {path}: fixed models need no run and have no margins; fix: give the folder alone"
            )
        report = _fixed_models.check(path, allow_code_execution)
    else:
        if (run is None) == (results is None):
            raise InputError("check: expected one run; fix: give RUN")
        run = run or results
        assert run is not None
        report = check_run(read_baseline(path), read_run(run), margins=_margins(margins), exact_outputs=exact_outputs)
    if markdown is not None:
        write_text_atomic(markdown, as_markdown(report))
    if as_json:
        print_json(report.as_dict())
    else:
        print_table(*_table(report))
    for line in _remarks(report):
        click.echo(line, err=True)
    context.exit(EXIT_CODES[report.verdict] if strict or report.verdict != "inconclusive" else 0)


def _margins(texts: tuple[str, ...]) -> dict[str, float]:
    """The margins by metric or kind. A number alone is for both kinds."""
    margins: dict[str, float] = {}
    for text in texts:
        name, value = split_assignment(text, "--margin") if "=" in text else ("", text)
        try:
            points = float(value)
        except ValueError:
            points = math.nan
        if not 0 <= points <= 100:
            raise InputError(f"--margin {text}: not a number of points; fix: give 0 to 100, as 2 or rouge_l=0.5")
        margins.update({name: points} if name else {"binary": points, "continuous": points})
    return margins


def as_markdown(report: CheckReport | FixedReport) -> str:
    """The report as Markdown: a table, reasons and notes."""
    header, rows = _table(report)
    lines = [f"### Regression check: {report.verdict}", "", _summary(report), "", f"| {' | '.join(header)} |"]
    lines.append(f"|{'---|' * 2}{'---:|' * (len(header) - 2)}")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    remarks = [f"- {line}" for line in _remarks(report)[:-1]]
    return "\n".join([*lines, *([""] if remarks else []), *remarks, ""])


def _table(report: CheckReport | FixedReport) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """(header, rows)."""
    if isinstance(report, CheckReport):
        return HEADER, [_row(cell) for cell in report.cells]
    return _fixed_models.HEADER, [_fixed_models.row(cell) for cell in report.cells]


def _row(cell: CellVerdict) -> tuple[str, ...]:
    means = (number(cell.baseline), number(cell.run), number(cell.difference, "+.2f"), interval(cell.ci95, "+.2f"))
    counts = (str(cell.items), str(cell.seeds), str(len(cell.changed)))
    return (cell.name, cell.verdict, *means, number(cell.p_value, ".2g"), *counts)


def _remarks(report: CheckReport | FixedReport) -> list[str]:
    """One line for every reason and note, and a summary as the last line."""
    words = {"inconclusive": "warning: inconclusive", "pass": "note"}
    lines = [
        f"{words.get(cell.verdict, cell.verdict)}: {cell.name}: {reason}"
        for cell in report.cells
        for reason in cell.reasons
    ]
    return [*lines, *(f"note: {note}" for note in report.notes), _summary(report)]


def _summary(report: CheckReport | FixedReport) -> str:
    counts: Counter[str] = Counter(cell.verdict for cell in report.cells)
    verdicts = ["pass", "inconclusive", "regress", *(["incomplete"] if counts["incomplete"] else [])]
    return f"{len(report.cells)} cells: {', '.join(f'{counts[verdict]} {verdict}' for verdict in verdicts)}"
