"""`harness evaluate`: a model folder and tasks to answers and scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.cli.options import (
    COUNT,
    PATH,
    generation_options,
    json_option,
    model_option,
    sandbox_options,
    template_options,
    template_settings,
)
from harness.cli.output import interval, number, print_json, print_table, reasoning_line
from harness.cli.run import print_failures, run_plan
from harness.planning.single_evaluation import evaluation_plan, record_folders
from harness.runs.records import Record, read_record
from harness.runs.store import RESULT

EPILOG = """\b
Examples:
  harness evaluate --model models/student --task gsm8k --task dolly --output-dir runs/student
  harness evaluate --model models/gemma --add-bos-token --task gsm8k --limit 200 --engine vllm --output-dir runs/gemma
  harness evaluate --model models/student --task gsm8k --parts 4 --output-dir runs/student
  harness evaluate --model models/student --task dolly --protocol minillm-sampling --output-dir runs/student
  harness evaluate --model models/thinker --template chat --task gsm8k --max-reasoning-tokens 4096 --output-dir runs/thinker
  harness evaluate --model models/student --task humaneval --allow-code-execution --json --output-dir runs/student > scores.json

\b
Answers and records go to DIR/cells/NAME/teacher/eval/<task>@v<version>; `harness leaderboard --results DIR` prints them.
The same command again resumes from the last completions, or finds the work done.
The data of the real tasks is looked for in the folder that HARNESS_DATA names."""


@click.command("evaluate", epilog=EPILOG)
@model_option
@click.option("--name", metavar="NAME", help="What records and tables call the model; its own name unless given.")
@click.option("--task", "tasks", multiple=True, required=True, metavar="TASK", help="Task; repeatable.")
@click.option("--limit", type=COUNT, metavar="N", help="The first N items of each task.")
@generation_options
@click.option(
    "--parts",
    type=COUNT,
    default=1,
    metavar="N",
    help="Number of processes that share the items, each with its own GPUs.",
)
@click.option(
    "--tensor-parallel", type=COUNT, default=1, metavar="N", help="Number of GPUs that vLLM spreads the model over."
)
@click.option("--add-bos-token", is_flag=True, help="Use a copy of the model whose tokenizer adds the begin token.")
@template_options
@click.option("--output-dir", "output", required=True, type=PATH, metavar="DIR", help="Output directory.")
@click.option("--overwrite", is_flag=True, help="Replace another evaluation of this name and task.")
@json_option
@sandbox_options
@click.pass_context
def command(
    context: click.Context,
    output: Path,
    engine: str,
    dtype: str,
    max_batch_size: int | None,
    seed: int,
    parts: int,
    tensor_parallel: int,
    as_json: bool,
    allow_code_execution: bool,
    **asked: Any,
) -> None:
    """Answer and score tasks with a model, nothing trained.

    Exits with 1 if the evaluation failed, or if the harness itself could not score some samples.
    """
    plan = evaluation_plan(
        evaluation={
            "engine": engine,
            "dtype": dtype,
            "max_batch_size": max_batch_size,
            "seed": seed,
            "parts": parts,
            "tensor_parallel": tensor_parallel,
        },
        template=template_settings(asked),
        allow_code_execution=allow_code_execution,
        output=output,
        **asked,
    )
    outcomes = run_plan(plan, allow_code_execution=allow_code_execution)
    if print_failures(plan, outcomes):
        context.exit(1)
    folders = record_folders(plan)
    records = {task: read_record(folder / RESULT) for task, folder in folders.items()}
    if as_json:
        results = [_contract(record, folders[task]) for task, record in records.items()]
        print_json({"model": plan.name, "results": results})
    else:
        _print_table(records)
        click.echo(f"Records: {output}/cells/*/teacher/eval/<task>@v<version>/result.json, samples.jsonl beside it")
    errors = sum(record.n.harness_error for record in records.values() if record.n is not None)
    if errors:
        click.echo(f"warning: {errors} samples could not be scored by the harness; samples.jsonl says why", err=True)
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
        **({} if record.reasoning is None else {"reasoning": record.reasoning.model_dump()}),
        "generated_tokens": cost.tokens,
        "tokens_per_solved": cost.tokens_per_solved,
        "seconds": cost.wall_seconds,
        "peak_memory": cost.peak_memory,
        "folder": str(folder),
    }


def _print_table(records: dict[str, Record]) -> None:
    rows = []
    for task, record in records.items():
        assert record.n is not None
        assert record.headline is not None
        n, cost = record.n, record.cost
        for name, metric in record.metrics.items():
            first = name == record.headline
            counts = (n.total, n.invalid, n.truncated, cost.tokens, f"{cost.wall_seconds or 0:.0f}")
            scores = (name, number(metric.value), interval(metric.ci95))
            rows.append((task if first else "", *scores, *(str(count) if first else "" for count in counts)))
    header = ("task", "metric", "value", "95 % interval", "samples", "invalid", "truncated", "tokens", "seconds")
    print_table(header, rows)
    for task, record in records.items():
        if record.reasoning is not None:
            click.echo(f"{task}: {reasoning_line(record.reasoning.model_dump())}")
