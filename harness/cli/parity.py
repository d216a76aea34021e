"""`harness parity`: whether two engines answer alike, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import harness.engines
from dskd import hub
from dskd.errors import InputError
from harness import tasks
from harness.cli.options import COUNT, DTYPE, PATH, batch_size_option, json_option, model_option, sandbox_options
from harness.cli.output import number, print_json, print_table, stages
from harness.evaluation.parity import Difference, EngineComparison
from harness.evaluation.parity_run import compare_engines
from harness.runs.store import UserFile

EPILOG = """\b
Examples:
  harness parity --model models/student --task gsm8k --limit 20
  harness parity --model models/student --task small_math --json > parity.json
  harness parity --model models/student --task dolly --limit 50 --dtype bfloat16 --output parity.json

\b
Exit codes: 0 all answers are equal, or where they part it is a tie; 1 an engine took a token that the model does not prefer;
2 something given is wrong. How to read it: docs/engines.md."""

TOLERANCE_HELP = "A tie: both tokens' logits within X of the largest; 0.001 in float32, 0.03 in float16, 0.25 in bfloat16 unless given."


@click.command("parity", epilog=EPILOG)
@model_option
@click.option("--task", "task_name", required=True, metavar="TASK", help="Whose prompts are asked.")
@click.option("--limit", type=COUNT, metavar="N", help="The first N items of the task.")
@click.option("--engines", default="vllm,transformers", show_default=True, metavar="A,B", help="The two to compare.")
@click.option("--dtype", default="float32", show_default=True, type=DTYPE, help="Of the model, also for the logits.")
@click.option("--tolerance", type=click.FloatRange(min=0), metavar="X", help=TOLERANCE_HELP)
@click.option("--max-new-tokens", type=COUNT, metavar="N", help="Maximum new tokens. [default: the task's]")
@batch_size_option
@json_option
@click.option("--output", type=PATH, metavar="FILE", help="Write the JSON object to a file too.")
@sandbox_options
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    task_name: str,
    engines: str,
    dtype: str,
    as_json: bool,
    output: Path | None,
    **asked: Any,
) -> None:
    """Compare the greedy answers of two engines to the same prompt ids, and say where they part and by how much."""
    pair = _two(engines)
    task = tasks.load(task_name)
    file = UserFile("--output", output) if output is not None else None
    model = hub.model_folder(model, where="--model")
    with stages() as stage:
        comparison, seconds = compare_engines(model, task, engines=pair, dtype=dtype, stage=stage, **asked)
    report = {"task": task.name, "version": task.version, "engines": [*pair], "dtype": dtype, **comparison.as_dict()}
    report["seconds"] = seconds
    if file is not None:
        file.write([report])
    if as_json:
        print_json(report)
    else:
        _print(comparison)
    if comparison.disagreements:
        context.exit(1)


def _two(engines: str) -> tuple[str, str]:
    names = engines.split(",")
    for name in names:
        if name == "auto":
            raise InputError(f"--engines {engines}: auto is no engine of its own; fix: name two, as vllm,transformers")
        harness.engines.check(name, "--engines")
    if len(names) != 2 or names[0] == names[1]:
        raise InputError(f"--engines {engines}: two engines are compared; fix: name two, as in vllm,transformers")
    return names[0], names[1]


def _print(comparison: EngineComparison) -> None:
    if comparison.differences:
        header = ("item", "position", *comparison.engines, "gap", "below the largest", "")
        print_table(header, (_row(comparison, difference) for difference in comparison.differences))
        click.echo()
    n = comparison.counts()
    means = comparison.mean_scores()
    of = f"of {n['items']}"
    click.echo(f"Equal: token ids {n['equal_ids']} {of}, text {n['equal_text']} {of}, scores {n['equal_scores']} {of}")
    for engine in comparison.engines:
        click.echo(f"{engine}: {', '.join(f'{name} {number(mean)}' for name, mean in means[engine].items())}")
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
    numbers = (number(value, ".3g") for value in (difference.gap, difference.below_top))
    verdict = "tie" if difference.is_tie(comparison.tolerance) else "DISAGREE"
    return (comparison.ids[difference.index], str(difference.position), *choices, *numbers, verdict)
