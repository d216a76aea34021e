"""`harness parity`: whether two engines answer alike, token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dskd.errors import InputError
from harness.cli.options import batch_size_option, check_engine, model_option, sandbox_options

if TYPE_CHECKING:
    from harness.evaluation.parity import Difference, EngineComparison

EPILOG = """\b
Examples:
  harness parity --model models/student --task gsm8k --limit 20
  harness parity --model models/student --task small_math --json > parity.json
  harness parity --model models/student --task dolly --limit 50 --dtype bfloat16 --output parity.json

\b
Exit codes: 0 all answers are equal, or where they part it is a tie; 1 an engine took a token that the model does not prefer;
2 something given is wrong. How to read it: docs/engines.md."""


@click.command("parity", epilog=EPILOG)
@model_option
@click.option("--task", "task_name", required=True, metavar="TASK", help="Whose prompts are asked.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The first N items of the task.")
@click.option(
    "--engines", default="vllm,transformers", show_default=True, metavar="A,B", help="The two that are compared."
)
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the model in both engines and in the pass that gives the logits.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    metavar="X",
    help="A tie: both tokens' logits within X of the largest; 0.001 in float32, 0.03 in float16, 0.25 in bfloat16 unless given.",
)
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), metavar="N", help="Of an answer; what the task says unless given."
)
@batch_size_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the JSON object to a file too.")
@sandbox_options
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    task_name: str,
    limit: int | None,
    engines: str,
    dtype: str,
    tolerance: float | None,
    max_new_tokens: int | None,
    max_batch_size: int | None,
    as_json: bool,
    output: Path | None,
    allow_code_execution: bool,
) -> None:
    """Compare the greedy answers of two engines to the same prompt ids, and say where they part and by how much."""
    from harness import tasks
    from harness.cli.output import stages
    from harness.evaluation.parity_run import compare_engines
    from harness.runs.store import UserFile

    first, second = _two(engines)
    task = tasks.load(task_name)
    file = UserFile("--output", output) if output is not None else None
    with stages() as stage:
        comparison, seconds = compare_engines(
            model,
            task,
            engines=(first, second),
            limit=limit,
            dtype=dtype,
            tolerance=tolerance,
            max_new_tokens=max_new_tokens,
            max_batch_size=max_batch_size,
            allow_code_execution=allow_code_execution,
            stage=stage,
        )
    report = {
        "task": task.name,
        "version": task.version,
        "engines": [first, second],
        "dtype": dtype,
        **comparison.as_dict(),
        "seconds": seconds,
    }
    if file is not None:
        file.write([report])
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(comparison)
    if comparison.disagreements:
        context.exit(1)


def _two(engines: str) -> tuple[str, str]:
    names = engines.split(",")
    for name in names:
        if name == "auto":
            raise InputError(
                f"--engines {engines}: auto is no engine of its own; fix: name two, as in vllm,transformers"
            )
        check_engine(name, "--engines")
    if len(names) != 2 or names[0] == names[1]:
        raise InputError(f"--engines {engines}: two engines are compared; fix: name two, as in vllm,transformers")
    return names[0], names[1]


def _print(comparison: EngineComparison) -> None:
    from harness.cli.output import print_table

    if comparison.differences:
        header = ("item", "position", *comparison.engines, "gap", "below the largest", "")
        print_table(header, (_row(comparison, difference) for difference in comparison.differences))
        click.echo()
    n = comparison.counts()
    means = comparison.mean_scores()
    of = f"of {n['items']}"
    click.echo(f"Equal: token ids {n['equal_ids']} {of}, text {n['equal_text']} {of}, scores {n['equal_scores']} {of}")
    for engine in comparison.engines:
        listed = ", ".join(f"{name} {'–' if mean is None else f'{mean:.2f}'}" for name, mean in means[engine].items())
        click.echo(f"{engine}: {listed}")
    if not comparison.differences:
        click.echo("The engines answer alike.")
    elif not comparison.disagreements:
        click.echo(f"The engines answer alike but for ties: {n['ties']}, all within {comparison.tolerance:g}.")
    else:
        click.echo(f"The engines disagree: {n['disagreements']} differences are no ties; {n['ties']} are.")


def _row(comparison: EngineComparison, difference: Difference) -> tuple[str, ...]:
    choices = []
    for choice in difference.choices:
        if choice.token is None:
            choices.append("ended")
        else:
            rank = "" if choice.rank is None else f" rank {choice.rank}"
            choices.append(f"{choice.text!r} ({choice.token}){rank}")
    numbers = ("–" if value is None else f"{value:.3g}" for value in (difference.gap, difference.below_top))
    verdict = "tie" if difference.is_tie(comparison.tolerance) else "DISAGREE"
    return (comparison.ids[difference.index], str(difference.position), *choices, *numbers, verdict)
