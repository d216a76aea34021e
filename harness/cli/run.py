"""`harness run`: from a matrix to a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import click

from harness.cli.options import COUNT, matrix_options, sandbox_options
from harness.cli.plan import print_plan
from harness.cli.progress import make_reporter
from harness.executors import EXECUTORS
from harness.executors.local import default_jobs
from harness.planning import preflight
from harness.planning.plan import Plan, make_plan
from harness.scheduling.executor import Settings
from harness.scheduling.outcome import Outcome
from harness.scheduling.runner import Runner

EPILOG = """\b
Examples:
  harness run --matrix quick --allow-code-execution
  harness run --matrix quick --allow-code-execution --only student=small-student --jobs 1
  harness run --matrix my.yaml --set TEACHER=models/teacher --output-dir runs/mine --limit 20

\b
The same command again runs what is missing; an interrupted training resumes from its last checkpoint.
Exit codes: 0 all done, 1 some cells failed, 2 wrong input, 130 interrupted with everything kept."""


def _known_executor(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    EXECUTORS.check(value, "--executor")
    return value


@click.command("run", epilog=EPILOG)
@matrix_options
@click.option(
    "--executor",
    default="local",
    show_default=True,
    metavar="NAME",
    callback=_known_executor,
    help="Executor that runs the jobs: its name, or file.py:Class.",
)
@click.option("--jobs", type=COUNT, metavar="J", help="Number of parallel jobs. [default: 2; 1 on one core or a GPU]")
@click.option("--fail-fast", is_flag=True, help="Start no more jobs after the first failure.")
@sandbox_options
@click.option("--offline", is_flag=True, hidden=True, expose_value=False)  # the default, unless HARNESS_HUB=1 is set
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.pass_context
def command(
    context: click.Context,
    executor: str,
    jobs: int | None,
    fail_fast: bool,
    allow_code_execution: bool,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Train and evaluate what a matrix asks for, except what is done already, and print the table."""
    plan = make_plan(**asked, allow_code_execution=allow_code_execution)
    if dry_run:
        print_plan(plan)
        return
    outcomes = run_plan(
        plan, executor=executor, jobs=jobs, fail_fast=fail_fast, allow_code_execution=allow_code_execution
    )
    print_left_out(plan)
    _print_results(plan)
    if print_failures(plan, outcomes):
        context.exit(1)


def run_plan(
    plan: Plan,
    *,
    executor: str = "local",
    jobs: int | None = None,
    fail_fast: bool = False,
    allow_code_execution: bool = False,
) -> Mapping[str, Outcome]:
    """Run the jobs of a plan and return their outcomes. InputError before anything is written.

    What they read from the hub is downloaded first.

    The folder of a matrix gets `run.json`, which lists the records that it is to have.
    """
    preflight.check(plan, allow_code_execution=allow_code_execution)
    preflight.fetch(plan)
    if plan.matrix is not None:
        preflight.write_run_file(plan.root, plan.matrix)
    if not plan.to_run:
        return {}
    parallel, uses_hub = jobs or default_jobs(), os.environ.get("HARNESS_HUB") == "1"
    with make_reporter(plan.to_run, parallel) as reporter:
        place = EXECUTORS.load(executor)(Settings(plan.root, parallel, offline=not uses_hub))
        return Runner(place, reporter, jobs=parallel, fail_fast=fail_fast).run(plan.to_run)


def _print_results(plan: Plan) -> None:
    from harness.results.load import load_results  # this and the tables import scipy, which takes a second
    from harness.tables.leaderboard import make_leaderboard
    from harness.tables.render import markdown

    results = load_results(plan.root)
    pairs = plan.matrix.pairs if plan.matrix is not None else []
    names = {(pair.teacher, student) for pair in pairs for student in (pair.student, None)}
    records = [record for record in results.records if (record.cell.teacher, record.cell.student) in names]
    if records:
        click.echo(markdown(make_leaderboard(records, results.items)))
    click.echo(f"Records:  {plan.root}/cells/<cell>/eval/<task>@v<version>/result.json, samples.jsonl beside it")
    click.echo(f"Logs:     {plan.root}/cells/<cell>/{{train,eval/<task>@v<version>}}/log.txt")
    click.echo(f"Students: {plan.root}/cells/<teacher>__<student>/<method>/seed<k>/train/model")
    click.echo(f"Costs:    harness leaderboard --results {plan.root} --costs")


_LEFT_OUT = {
    "too_long_student": "longer than max_length for the student",
    "too_long_teacher": "longer than max_length for the teacher",
    "not_encodable": "that a tokenizer cannot write exactly",
    "special_tokens": "whose response spells a special token",
}


def print_left_out(plan: Plan) -> None:
    """Print on standard error how many examples each training set lost, why, and the first of each kind: none is ever cut."""
    for job in plan.jobs.values():
        report = job.folder / "dataset" / "report.json"
        if job.kind != "data" or not report.is_file():
            continue
        counts = json.loads(report.read_text(encoding="utf-8"))
        if counts["kept"] == counts["examples"]:
            continue
        lost = {reason: counts[reason] for reason in _LEFT_OUT if counts[reason]}
        reasons = ", ".join(f"{count} {_LEFT_OUT[reason]}" for reason, count in lost.items())
        left_out = f"{counts['examples'] - counts['kept']} of {counts['examples']} examples"
        click.echo(f"{job.title}: left out {left_out} ({reasons})", err=True)
        for reason in lost:
            for example in counts.get("left_out", {}).get(reason, ()):  # reports of older versions have none
                click.echo(f"  line {example['line']}, {_LEFT_OUT[reason]}: {example['text']}", err=True)
        click.echo(f"  counts and lines: {report}", err=True)


def print_failures(plan: Plan, outcomes: Mapping[str, Outcome]) -> bool:
    """Print on standard error what failed or could not run. Returns whether there was anything."""
    bad = [(plan.jobs[key], outcome) for key, outcome in outcomes.items() if outcome.status != "done"]
    for job, outcome in bad:
        word = "failed" if outcome.status == "failed" else "not run"
        click.echo(f"{word}: {job.title}: {outcome.reason}", err=True)
        if outcome.status == "failed":
            click.echo(f"        log: {job.folder / 'log.txt'}", err=True)
    for job in plan.blocked:
        click.echo(f"not run: {job.title}: {job.reason}", err=True)
    return bool(bad or plan.blocked)
