"""`harness run`: from a matrix to a table."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.cli.execution import Execution, execution_of, execution_options
from harness.cli.options import matrix_options, sandbox_options
from harness.cli.plan import print_plan
from harness.cli.progress import make_reporter
from harness.planning import preflight
from harness.planning.plan import Plan, PlannedJob, make_plan
from harness.runs.machine import cores
from harness.runs.store import LOG, OutputFolder
from harness.scheduling.observer import Observers
from harness.scheduling.outcome import Outcome
from harness.scheduling.reasons import last_lines
from harness.scheduling.runner import Runner
from harness.steps.text_mixture import KINDS
from harness.tables.remembered import remembered
from harness.watching.observers import observe
from harness.watching.text import line

# Of the log of a job that failed: the last lines, and characters of each.
_LOG_LINES, _LOG_WIDTH = 4, 160

EPILOG = """\b
Examples:
  harness run --matrix quick --allow-code-execution
  harness run --matrix quick --allow-code-execution --only student=small-student --jobs 1
  harness run --matrix my.yaml --set TEACHER=models/teacher --output-dir runs/mine --limit 20
  harness run --matrix my.yaml --executor slurm --executor-option partition=gpu --executor-option account=lab
  harness run --matrix my.yaml --executor ray --executor-option address=auto

\b
The same command again runs what is missing; an interrupted training resumes from its last checkpoint.
Ctrl-C once: running jobs end at their next checkpoint. Twice: now.
Exit codes: 0 all done, 1 some cells failed, 2 wrong input, 130 interrupted with everything kept."""


@click.command("run", epilog=EPILOG)
@matrix_options
@execution_options
@sandbox_options
@click.option("--offline", is_flag=True, hidden=True, expose_value=False)  # the default, unless HARNESS_HUB=1 is set
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.pass_context
def command(
    context: click.Context,
    allow_code_execution: bool,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Train and evaluate what a matrix asks for, except what is done already, and print the table."""
    execution = execution_of(asked)
    plan = make_plan(**asked, allow_code_execution=allow_code_execution)
    if dry_run:
        print_plan(plan)
        return
    outcomes = run_plan(plan, execution, allow_code_execution=allow_code_execution)
    print_left_out(plan)
    _print_results(plan)
    if print_failures(plan, outcomes):
        context.exit(1)


def run_plan(
    plan: Plan, execution: Execution | None = None, *, allow_code_execution: bool = False
) -> Mapping[str, Outcome]:
    """Run the jobs of a plan and return their outcomes. InputError before anything is written.

    Without `execution` they run one after the other on this machine, with all of its cores.

    What they read from the hub is downloaded first.

    The folder of a matrix gets `run.json`, which lists the records that it is to have.
    """
    if execution is None:
        execution = Execution(jobs=1, cpus=cores())
    executor = execution.make(plan.root)
    if plan.to_run:
        executor.check(plan.to_run)
    preflight.check(plan, allow_code_execution=allow_code_execution)
    preflight.fetch(plan)
    if plan.matrix is not None:
        preflight.write_run_file(plan.root, plan.matrix)
    if not plan.to_run:
        return {}
    watch, observers = observe(plan, execution.executor, execution.jobs)
    with make_reporter(watch) as reporter:
        everybody = Observers([*observers, reporter])
        runner = Runner(executor, everybody, jobs=execution.jobs, fail_fast=execution.fail_fast, tries=execution.tries)
        return runner.run(plan.to_run)


def _print_results(plan: Plan) -> None:
    pairs = plan.matrix.trained_pairs if plan.matrix is not None else []
    names = {(teacher, student) for teacher, trained in pairs for student in (trained, None)}
    table = remembered(plan.root, str(sorted(names, key=str)), partial(_table, plan.root, names))
    if table:
        click.echo(table)
    click.echo(f"Records:  {plan.root}/cells/<cell>/eval/<task>@v<version>/result.json, samples.jsonl beside it")
    click.echo(f"Logs:     {plan.root}/cells/<cell>/{{train,eval/<task>@v<version>}}/log.txt")
    click.echo(f"Students: {plan.root}/cells/<teacher>__<student>/<method>/seed<k>/train/model")
    click.echo(f"Costs:    harness leaderboard --results {plan.root} --costs")


def _table(root: Path, names: Collection[tuple[str, str | None]]) -> str:
    """The table of the records of these pairs of teacher and student; empty without any."""
    from harness.results.load import load_results  # this and the tables import scipy, which takes a second
    from harness.tables.leaderboard import make_leaderboard
    from harness.tables.render import markdown

    results = load_results(root)
    records = [record for record in results.records if (record.cell.teacher, record.cell.student) in names]
    return markdown(make_leaderboard(records, results.items)) if records else ""


def _print_without_text(job: PlannedJob) -> None:
    manifest = OutputFolder(job.folder).manifest if job.kind in KINDS else None
    report = {} if manifest is None else manifest.report
    if without := report.get("without_text"):
        click.echo(f"{job.title}: {without:,} of {report['prompts']:,} prompts have no text of the teacher's", err=True)


_LEFT_OUT = {
    "too_long_student": "longer than max_length for the student",
    "too_long_teacher": "longer than max_length for the teacher",
    "not_encodable": "that a tokenizer cannot write exactly",
    "special_tokens": "whose response spells a special token",
}


def print_left_out(plan: Plan) -> None:
    """Print on standard error how many examples each training set lost, why, and the first of each kind: none is ever cut.

    And how many prompts a teacher has written no text for that could be used.
    """
    for job in plan.jobs.values():
        _print_without_text(job)
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
        word = {"failed": "failed", "stopped": "stopped"}.get(outcome.status, "not run")
        click.echo(f"{word}: {line(job.title)}: {line(outcome.reason)}", err=True)
        if outcome.status == "failed":
            log = job.folder / LOG
            for text in last_lines(log, _LOG_LINES):
                click.echo(f"        | {line(text, _LOG_WIDTH)}", err=True)
            click.echo(f"        log: {log}", err=True)
    for job in plan.blocked:
        click.echo(f"not run: {job.title}: {job.reason}", err=True)
    return bool(bad or plan.blocked)
