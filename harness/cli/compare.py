"""`harness compare`: compares two methods or two runs on their shared items."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dskd.errors import InputError
from harness.cli.options import PATH, json_option, split_assignment
from harness.cli.output import interval, print_json, print_table
from harness.config.cells import TEACHER_METHOD
from harness.config.tuning import TUNED, base_name
from harness.results.distances import read_distances
from harness.results.item_scores import Results
from harness.results.load import load_results
from harness.tables.compared_settings import HEADER as SETTINGS_HEADER
from harness.tables.compared_settings import settings_of_methods, settings_of_runs
from harness.tables.comparison import KEYS, ComparisonRow, compare_methods, compare_runs, is_chosen
from harness.tables.distances import (
    TEXTS,
    TITLES,
    ComparedDistance,
    DistanceRow,
    compared_methods,
    compared_runs,
    distance_rows,
)

EPILOG = """\b
Examples:
  harness compare kd dskd-v2-eta --results runs/quick
  harness compare kd sft --results runs/quick --only student=small-student --only task=small_math
  harness compare kd gkd --tuned --results runs/tuned
  harness compare runs/before runs/after
  harness compare results/before results/after --json > changes.json

\b
A - B is in points, of distances in nats or shares (docs/distances.md).
p is Holm-corrected over all rows. MDE: minimum detectable effect, at 80 % power (docs/statistics.md)."""

SCORES = ("A", "B", "A - B", "95 % interval", "p (Holm)", "MDE")
HEADER = ("teacher", "student", "method", "task", *SCORES, "seeds", "items", "verdict")
DISTANCE_HEADER = ("teacher", "student", "method", "task", "text", "number", "A", "B", "A - B")


@click.command("compare", epilog=EPILOG)
@click.argument("a")
@click.argument("b")
@click.option("--results", type=PATH, metavar="DIR", help="The run with the methods A and B. Else, A and B are runs.")
@click.option(
    "--only",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only rows with this teacher, student, method or task, by name or pattern. Repeatable.",
)
@click.option("--skip", multiple=True, metavar="KEY=VALUE", help="All rows but those with this key; repeatable.")
@click.option("--tuned", is_flag=True, help="Compare the methods with tuned settings: A+tuned and B+tuned.")
@json_option
def command(
    a: str, b: str, results: Path | None, only: tuple[str, ...], skip: tuple[str, ...], tuned: bool, as_json: bool
) -> None:
    """Compare two methods of a run, or two runs method by method, with paired tests on their shared items.

    With several seeds, the test is about the methods. With one seed each, it is about these two models. The exit code is 0 for any
    verdict.
    """
    wanted, unwanted = _patterns("--only", only), _patterns("--skip", skip)
    if results is not None:
        a, b = (_tuned(name) if tuned else name for name in (a, b))
        loaded = _load(results, "--results")
        lines, notes = compare_methods(loaded, a, b, wanted, unwanted)
        pairs = {(line.teacher, str(line.student)) for line in lines}
        settings, unfair = settings_of_methods(loaded.records, (a, b), pairs)
        distances, methods = compared_methods(_distances(results), a, b), {a, b}
    elif tuned:
        raise InputError("--tuned: is for two methods of a run; fix: name two methods, and the run with --results DIR")
    else:
        both = _load(Path(a), "A"), _load(Path(b), "B")
        lines, notes = compare_runs(*both, wanted, unwanted)
        cells = {(line.teacher, str(line.student), line.method) for line in lines}
        settings, unfair = settings_of_runs(both[0].records, both[1].records, cells)
        distances, methods = compared_runs(_distances(Path(a)), _distances(Path(b))), set()
    distances = [line for line in distances if is_chosen(_names(line, methods), wanted, unwanted)]
    notes += unfair
    if as_json:
        rows = [asdict(line) for line in lines]
        more: dict[str, Any] = {"distances": [asdict(line) for line in distances]} if distances else {}
        more |= {"settings": [setting.as_json() for setting in settings]} if settings else {}
        print_json({"schema_version": 1, "a": a, "b": b, "comparisons": rows, **more, "notes": notes})
        return
    print_table(HEADER, map(_row, lines))
    if settings:
        click.echo("\nHow the settings were chosen")
        print_table(SETTINGS_HEADER, [setting.cells for setting in settings])
    if distances:
        click.echo("\nDistances from the teacher")
        print_table(DISTANCE_HEADER, map(_distance_row, distances))
    for note in notes:
        click.echo(f"note: {note}", err=True)


def _tuned(name: str) -> str:
    """The name of a method with a tuned setting; a teacher has none."""
    return name if name == TEACHER_METHOD or base_name(name) != name else f"{name}+{TUNED}"


def _patterns(option: str, texts: Iterable[str]) -> dict[str, set[str]]:
    """{key: names and patterns} of an option. InputError for a key that rows do not have."""
    patterns: dict[str, set[str]] = {}
    for text in texts:
        key, value = split_assignment(text, option)
        if key not in KEYS:
            raise InputError(f"{option} {text}: no key {key!r}; fix: use one of {', '.join(KEYS)}")
        patterns.setdefault(key, set()).add(value)
    return patterns


def _row(line: ComparisonRow) -> list[str]:
    scores = [f"{line.value_a:.1f}", f"{line.value_b:.1f}", f"{line.difference:+.1f}", interval(line.ci95, "+.1f")]
    rest = [f"{line.p_holm:.3g}", f"{line.min_detectable_effect:.1f}", str(line.n_seeds), str(line.n_items)]
    return [line.teacher, line.student or "–", line.method, line.task, *scores, *rest, line.verdict]


def _distances(root: Path) -> list[DistanceRow]:
    """The distances of a run, where it has some."""
    records, problems = read_distances(root)
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    return distance_rows(records)


def _names(line: ComparedDistance, methods: set[str]) -> dict[str, set[str]]:
    task = line.task.partition(" [")[0]
    return {
        "teacher": {line.teacher},
        "student": {str(line.student)},
        "task": {line.task, task},
        "method": {line.method, *methods},
    }


def _distance_row(line: ComparedDistance) -> list[str]:
    numbers = [f"{value:.4f}" for value in (line.value_a, line.value_b)]
    names = [line.teacher, line.student or "–", line.method, line.task, TEXTS[line.text], TITLES[line.number]]
    return [*names, *numbers, f"{line.difference:+.4f}"]


def _load(root: Path, named: str) -> Results:
    if not root.is_dir():
        raise InputError(f"{named} {root}: no such folder; fix: give that of a run, or two methods and --results DIR")
    results = load_results(root)
    for problem in results.problems:
        click.echo(f"problem: {problem}", err=True)
    if not results.items:
        raise InputError(f"{named} {root}: holds no evaluations with samples; fix: give the folder of a run")
    return results
