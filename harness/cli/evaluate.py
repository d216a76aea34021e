"""`harness evaluate`: a model folder and tasks to answers and scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import asking_options, model_option, sandbox_options

if TYPE_CHECKING:
    from harness.runs.records import Record

EPILOG = """\b
Examples:
  harness evaluate --model models/student --task gsm8k --task dolly --output-dir runs/student
  harness evaluate --model models/gemma --add-bos-token --task gsm8k --limit 200 --engine vllm --output-dir runs/gemma
  harness evaluate --model models/student --task dolly --protocol minillm-sampling --output-dir runs/student
  harness evaluate --model models/student --task humaneval --allow-code-execution --json --output-dir runs/student > scores.json

\b
Answers and records go to DIR/cells/NAME/teacher/eval/<task>@v<version>; `harness leaderboard --results DIR` prints them.
The same command again goes on from the last answers, or finds the work done.
The data of the real tasks is looked for in the folder that HARNESS_DATA names."""


@click.command("evaluate", epilog=EPILOG)
@model_option
@click.option("--name", metavar="NAME", help="What records and tables call the model; the folder's name unless given.")
@click.option(
    "--task", "tasks", multiple=True, required=True, metavar="TASK", help="Repeatable; `harness list tasks` has them."
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N items of each task.")
@asking_options
@click.option(
    "--add-bos-token",
    is_flag=True,
    help="Begin prompts with the begin token, for a model whose folder lost the habit (a copy of it is made in DIR).",
)
@click.option("--template", type=click.Choice(["alpaca", "chat"]), help="Ask the model by instructions.")
@click.option("--system", metavar="TEXT", help="The system message of the chat template.")
@click.option("--output-dir", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where it goes.")
@click.option("--overwrite", is_flag=True, help="Replace what another evaluation of this name and task left there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@sandbox_options
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    name: str | None,
    tasks: tuple[str, ...],
    limit: int | None,
    max_new_tokens: int | None,
    protocol: str,
    engine: str,
    dtype: str,
    max_batch_size: int | None,
    seed: int,
    add_bos_token: bool,
    template: str | None,
    system: str | None,
    output_dir: Path,
    overwrite: bool,
    as_json: bool,
    allow_code_execution: bool,
) -> None:
    """Answer and score tasks with a model folder, nothing trained.

    Exits with 1 if the evaluation failed, or if the harness itself could not score some samples.
    """
    from harness.cli.run import print_failures, run_plan
    from harness.planning.single_evaluation import evaluation_plan, record_folders
    from harness.runs.records import read_record
    from harness.runs.store import RESULT

    asked = {"kind": template, "system": system}
    plan = evaluation_plan(
        model=model,
        name=name,
        tasks=tasks,
        limit=limit,
        max_new_tokens=max_new_tokens,
        protocol=protocol,
        evaluation={"engine": engine, "dtype": dtype, "max_batch_size": max_batch_size, "seed": seed},
        add_bos_token=add_bos_token,
        template={key: value for key, value in asked.items() if value is not None},
        output=output_dir,
        allow_code_execution=allow_code_execution,
        overwrite=overwrite,
    )
    outcomes = run_plan(plan, jobs=1, allow_code_execution=allow_code_execution)
    if print_failures(plan, outcomes):
        context.exit(1)
    folders = record_folders(plan)
    records = {task: read_record(folder / RESULT) for task, folder in folders.items()}
    if as_json:
        results = [_contract(record, folders[task]) for task, record in records.items()]
        click.echo(json.dumps({"model": plan.name, "results": results}, indent=2))
    else:
        _print_table(records)
        click.echo(f"Records: {output_dir}/cells/*/teacher/eval/<task>@v<version>/result.json, samples.jsonl beside it")
    errors = sum(record.n.harness_error for record in records.values() if record.n is not None)
    if errors:
        click.echo(
            f"warning: {errors} samples could not be scored by the harness itself; samples.jsonl says why", err=True
        )
        context.exit(1)


def _contract(record: Record, folder: Path) -> dict[str, Any]:
    """Return what --json prints of a task, which other programs read: its keys are part of the interface."""
    assert record.n is not None
    metrics = {
        name: {"value": metric.value, "stderr": metric.stderr, "ci95": metric.ci95, "n": metric.n}
        for name, metric in record.metrics.items()
    }
    cost = record.cost
    return {
        "task": record.cell.task,
        "version": record.cell.task_version,
        "protocol": record.cell.protocol.name if record.cell.protocol else None,
        "engine": record.environment.engine,
        "metrics": metrics,
        "n": record.n.model_dump(),
        "generated_tokens": cost.tokens,
        "seconds": cost.wall_seconds,
        "peak_memory": cost.peak_memory,
        "folder": str(folder),
    }


def _print_table(records: dict[str, Record]) -> None:
    from harness.cli.output import print_table

    rows = []
    for task, record in records.items():
        assert record.n is not None
        assert record.headline is not None
        n, cost = record.n, record.cost
        for name, metric in record.metrics.items():
            first = name == record.headline
            interval = "–" if metric.ci95 is None else f"{metric.ci95[0]:.2f} to {metric.ci95[1]:.2f}"
            value = "–" if metric.value is None else f"{metric.value:.2f}"
            counts = (n.total, n.invalid, n.truncated, cost.tokens, f"{cost.wall_seconds or 0:.0f}")
            rows.append((task if first else "", name, value, interval, *(str(c) if first else "" for c in counts)))
    header = ("task", "metric", "value", "95 % interval", "samples", "invalid", "truncated", "tokens", "seconds")
    print_table(header, rows)
