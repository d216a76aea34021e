"""`harness score`: a file of predictions to scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dskd.errors import InputError
from dskd.tokenization.reasoning import KNOWN, ReasoningMarkers
from harness import tasks
from harness.cli.options import PATH, RenamedOption, json_option, sandbox_options
from harness.cli.output import interval, number, print_json, reasoning_line
from harness.evaluation.score import format_of_predictions, read_predictions, score_predictions
from harness.runs.store import UserFile

EPILOG = """\b
Examples:
  harness score --task gsm8k --predictions answers.jsonl
  harness score --task dolly --predictions answers.jsonl --json > dolly.json
  harness score --task humaneval --predictions completions.jsonl --allow-code-execution --samples-out samples.jsonl
  harness score --task humaneval --predictions of-a-chat-model.jsonl --response-format chat --allow-code-execution
  harness score --task gsm8k --predictions of-a-server.jsonl --reasoning-markers "<think>" "</think>"

\b
A line of the file: {"id": "HumanEval/0", "output": "    return ..."}
The data of the real tasks is looked for in the folder that HARNESS_DATA names."""

PREDICTIONS_HELP = (
    'Lines {"id": ..., "output": ...}, at least one for every id of the task; several of an id are its samples. The id is '
    "the data set's own (HumanEval/0) or the row number in its file, from 0."
)


@click.command("score", epilog=EPILOG)
@click.option("--task", "task_name", required=True, metavar="TASK", help="The task; `harness list tasks` has them all.")
@click.option("--predictions", required=True, type=PATH, metavar="FILE.jsonl", help=PREDICTIONS_HELP)
@click.option("--samples-out", type=PATH, metavar="FILE", help="Write a line per sample: scores, extraction, outcome.")
@click.option(
    "--response-format",
    "--answers",
    "response_format",
    cls=RenamedOption,
    type=click.Choice(["completion", "chat"]),
    help="completion: the text continues the task's own prompt, and the task's stop strings end it. chat: responses to an "
    "instruction, as of a model with a template; nothing ends them, and code may be in a fenced block. What the file says "
    "unless given, else completion.",
)
@click.option(
    "--reasoning-markers",
    nargs=2,
    metavar="OPENING CLOSING",
    help="What the model puts around its reasoning in the outputs: all up to the last closing marker is cut before scoring, and an "
    "output that never closes is no answer. Files of `harness generate` need none.",
)
@click.option(
    "--prompt-opens-reasoning",
    is_flag=True,
    help="The prompts ended with the opening marker; with --reasoning-markers.",
)
@json_option
@sandbox_options
@click.pass_context
def command(
    context: click.Context,
    task_name: str,
    predictions: Path,
    samples_out: Path | None,
    response_format: str | None,
    reasoning_markers: tuple[str, str] | None,
    prompt_opens_reasoning: bool,
    as_json: bool,
    allow_code_execution: bool,
) -> None:
    """Score a file of predictions on the whole test set of a task.

    Exits with 1 if the harness itself could not score some samples; those count as neither right nor wrong.
    """
    task = tasks.load(task_name)
    task.require_completions()
    task.check_permission(allow_code_execution)
    response_format = response_format or format_of_predictions(predictions)
    if response_format == "chat":
        if not task.supports_chat:
            raise InputError(f"--response-format chat: task {task.name} has no instructions; fix: leave it out")
        task = task.as_chat()
    markers = _markers(reasoning_markers, prompt_opens_reasoning)
    if markers is None:
        _warn_of_reasoning(predictions)
    samples_file = UserFile("--samples-out", samples_out) if samples_out is not None else None
    with _progress(f"scoring {task.name}") as progress:
        allowed = {"allow_code_execution": allow_code_execution}
        samples, summary = score_predictions(
            task, predictions, **allowed, reasoning=markers, prompt_opens=prompt_opens_reasoning, progress=progress
        )
    if samples_file is not None:
        samples_file.write(samples)
    if as_json:
        # Other programs read this: its keys are part of the interface.
        metrics = {
            name: {key: metric[key] for key in ("value", "stderr", "ci95", "n")}
            for name, metric in summary["metrics"].items()
        }
        document = {"task": task.name, "version": task.version, "answers": response_format, "metrics": metrics}
        reasoning = {key: summary[key] for key in ("reasoning",) if key in summary}
        print_json(document | {"n": summary["n"]} | reasoning)
    else:
        _print_table(task, response_format, summary)
    if errors := summary["n"]["harness_error"]:
        click.echo(f"warning: {errors} samples could not be scored by the harness; --samples-out says why", err=True)
        context.exit(1)


def _print_table(task: Any, response_format: str, summary: dict[str, Any]) -> None:
    kind = ", answers of a chat model" if response_format == "chat" else ""
    table = Table(title=f"{task.name}, version {task.version}{kind}", title_justify="left")
    table.add_column("metric")
    for column in ("value", "95 % interval", "standard error", "n"):
        table.add_column(column, justify="right")
    for name, metric in summary["metrics"].items():
        value, error = number(metric["value"]), number(metric["stderr"])
        table.add_row(name, value, interval(metric["ci95"]), error, str(metric["n"]))
    Console().print(table)
    n = summary["n"]
    click.echo(
        f"{n['total']} samples: {n['scored']} scored, {n['invalid']} invalid, {n['truncated']} truncated, "
        f"{n['harness_error']} harness errors"
    )
    if "reasoning" in summary:
        click.echo(reasoning_line(summary["reasoning"]))


def _markers(given: tuple[str, str] | None, prompt_opens: bool) -> ReasoningMarkers | None:
    if given is None:
        if prompt_opens:
            raise InputError(
                "--prompt-opens-reasoning: means nothing alone; fix: add --reasoning-markers OPENING CLOSING"
            )
        return None
    if not all(given):
        raise InputError('--reasoning-markers: one is empty; fix: give both, as "<think>" "</think>"')
    return next((known for known in KNOWN if (known.opening, known.closing) == given), ReasoningMarkers(*given))


def _warn_of_reasoning(predictions: Path) -> None:
    """Say it where outputs hold reasoning that nobody has cut: it would be scored as a part of the answers."""
    lines = [line for line in read_predictions(predictions) if line.reasoning is None]
    for markers in KNOWN:
        if found := sum(markers.closing in line.output for line in lines):
            click.echo(
                f"warning: {found} of {len(lines)} outputs hold {markers.closing}, and what stands before it is scored too; "
                f'fix: --reasoning-markers "{markers.opening}" "{markers.closing}"',
                err=True,
            )
            return


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left, on stderr, and only where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(title, total=None)

        def update(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)

        yield update
