"""`harness judge`: a judge model compares two sets of answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dskd.errors import InputError
from harness import tasks
from harness.cli._judge_table import HEADER, lines, rows, warnings
from harness.cli.data_options import SOURCE
from harness.cli.options import COUNT, PATH, SEED, json_option, read_settings
from harness.cli.output import print_json, print_table, stages
from harness.cli.show import find_cell
from harness.evaluation.generate import prompts_of_file
from harness.judge.asking import ask, missing
from harness.judge.endpoint import JudgeEndpoint
from harness.judge.folder import open_folder
from harness.judge.pairs import Pair, questions
from harness.judge.prompt import prompt_identity
from harness.judge.sources import (
    Asked,
    Side,
    make_pairs,
    prompts_of_answers,
    prompts_of_task,
    prompts_of_texts,
    read_side,
    references,
)
from harness.judge.summary import summarise
from harness.judge.verdict import CHOICES
from harness.runs.store import SAMPLES
from harness.tasks.task import Task

EPILOG = """\b
Examples:
  vllm serve Qwen/Qwen3-8B --port 8000        # the judge; llama.cpp's server and hosted APIs work too
  harness judge a.jsonl b.jsonl --task dolly --judge-model Qwen/Qwen3-8B --base-url http://127.0.0.1:8000/v1 \\
      --output-dir judged/a-b
  harness judge a.jsonl --baseline reference --task dolly --judge-model Qwen/Qwen3-8B \\
      --base-url http://127.0.0.1:8000/v1 --output-dir judged/a-reference
  harness judge big__small/dskd-v2/seed1 big__small/sft/seed1 --results runs/mine --task dolly \\
      --judge-model Qwen/Qwen3-8B --base-url http://127.0.0.1:8000/v1 --output-dir judged/dskd-sft
  harness judge a.jsonl b.jsonl --prompts mine.jsonl --judge-model gpt-4.1-mini \\
      --base-url https://api.openai.com/v1 --parallel 4 --output-dir judged/a-b-hosted

\b
a.jsonl is a file of `harness generate`, a `samples.jsonl` of an evaluation, or any lines {"id": ..., "output": ...}.
A win rate above 50 favours A. Ties count as half; see docs/judge.md for the formulas and for what a judge cannot show.
If interrupted, the same command resumes: what was answered is not asked again."""

PROMPTS_HELP = 'What was asked: lines {"id", "prompt"}, as of `harness generate --prompts`.'
TASK_HELP = "What was asked: the prompts of a task. Without it and --prompts: the prompts that the answers' lines have."
LIMIT_HELP = "The first N prompts. Both sides must have answered all of them."
REPEAT_HELP = "Ask N of the pairs a second time, with the next seed, to measure the judge's agreement with itself."
PARAMETER_HELP = (
    "Another parameter of the request, as top_p=0.9 or chat_template_kwargs.enable_thinking=false; NAME=null leaves one out. "
    "max_completion_tokens takes the place of max_tokens. Repeatable."
)
CHOICES_HELP = (
    "Let the server allow nothing but a verdict (structured outputs of vLLM): for judges that forget the format."
)
KEY_HELP = "Environment variable with the API key; local servers need none. The key is never stored or printed."

# What this command itself says in each request.
_RESERVED = {"model", "messages", "stream", "n"}


@dataclass(frozen=True)
class _Inputs:
    """What the command line names: A, and B or the baseline, and what was asked."""

    a: str
    b: str | None
    baseline: str | None
    results: Path | None
    task: Task | None
    prompts: Path | None


@click.command("judge", epilog=EPILOG)
@click.argument("a")
@click.argument("b", required=False)
@click.option("--baseline", type=click.Choice(["reference"]), help="Instead of B: the reference answers of the task.")
@click.option(
    "--results", type=PATH, metavar="DIR", help="A run; A and B are cells of it, as `harness show` names them."
)
@click.option("--task", "task_name", metavar="TASK", help=TASK_HELP)
@click.option("--prompts", type=PATH, metavar=SOURCE, help=PROMPTS_HELP)
@click.option("--limit", type=COUNT, metavar="N", help=LIMIT_HELP)
@click.option("--samples", type=COUNT, metavar="N", help="The first N samples of each prompt. [default: all]")
@click.option("--judge-model", required=True, metavar="NAME", help="The judge, by the name that its server knows.")
@click.option(
    "--base-url", required=True, metavar="URL", help="Address of an OpenAI-compatible API, as http://HOST:8000/v1."
)
@click.option("--api-key-env", default="OPENAI_API_KEY", show_default=True, metavar="NAME", help=KEY_HELP)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Of the judge.")
@click.option(
    "--max-tokens", type=COUNT, default=1024, show_default=True, metavar="N", help="Of a reply, its reasoning included."
)
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Of the judge's sampling, and of the choice of --repeat."
)
@click.option("--parameter", "more", multiple=True, metavar="NAME=VALUE", help=PARAMETER_HELP)
@click.option("--choices", is_flag=True, help=CHOICES_HELP)
@click.option("--repeat", type=click.IntRange(min=0), default=50, show_default=True, metavar="N", help=REPEAT_HELP)
@click.option("--parallel", type=COUNT, default=8, show_default=True, metavar="N", help="Requests at a time.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds a request.",
)
@click.option(
    "--retries", type=click.IntRange(min=0), default=5, show_default=True, help="Of a request that fails, with backoff."
)
@click.option(
    "--output-dir", required=True, type=PATH, metavar="DIR", help="Where requests, replies and the summary go."
)
@json_option
def command(
    a: str,
    b: str | None,
    baseline: str | None,
    results: Path | None,
    task_name: str | None,
    prompts: Path | None,
    limit: int | None,
    samples: int | None,
    judge_model: str,
    base_url: str,
    api_key_env: str,
    temperature: float,
    max_tokens: int,
    seed: int,
    more: tuple[str, ...],
    choices: bool,
    repeat: int,
    parallel: int,
    timeout: float,
    retries: int,
    output_dir: Path,
    as_json: bool,
) -> None:
    """Let a judge model compare two sets of answers to the same prompts, pair by pair, and print the win rate of A.

    Each pair is asked in both orders; two different verdicts are a tie. The judge is any model behind an OpenAI-compatible API.
    Every request and reply is stored in --output-dir. No leaderboard reads it.
    """
    endpoint = JudgeEndpoint(base_url, api_key_env, timeout, retries)
    parameters = _parameters(temperature, max_tokens, seed, choices, more)
    task = tasks.load(task_name) if task_name is not None else None
    side_a, side_b, asked = _read(_Inputs(a, b, baseline, results, task, prompts))
    pairs = make_pairs(side_a, side_b, asked, limit=limit, samples=samples)
    wanted = questions(pairs, repeat, seed)
    names = {"a": side_a.name, "b": side_b.name, "judge_model": judge_model}
    settings = {
        "judge_model": judge_model,
        "prompt": prompt_identity(),
        "parameters": parameters,
        "asked": asked.identity,
        "a": {"sha256": side_a.sha256},
        "b": {"sha256": side_b.sha256},
    }
    with open_folder(output_dir, settings, {"names": names, "base_url": endpoint.shown}) as folder:
        if left := missing(folder, wanted, parameters):
            with stages() as stage, stage("verdicts", len(left)) as advance:
                ask(folder, left, endpoint, judge_model, parameters, parallel=parallel, advance=advance)
        summary = {"schema_version": 1, **names, **summarise(pairs, wanted, folder.judgements)}
        folder.write_summary(summary)
    _print(summary, pairs, asked, as_json=as_json)


def _print(summary: dict[str, Any], pairs: list[Pair], asked: Asked, *, as_json: bool) -> None:
    if as_json:
        print_json(summary)
    else:
        prompts = len({pair.id for pair in pairs})
        click.echo(f"A: {summary['a']}\nB: {summary['b']}")
        click.echo(f"judge: {summary['judge_model']}, on {prompts} of {len(asked.texts)} prompts\n")
        print_table(HEADER, rows(summary))
        click.echo()
        for line in lines(summary):
            click.echo(line)
    for warning in warnings(summary):
        click.echo(f"warning: {warning}", err=True)


def _parameters(temperature: float, max_tokens: int, seed: int, choices: bool, more: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of each request."""
    given = read_settings(more, "--parameter")
    if refused := sorted(_RESERVED & given.keys()):
        raise InputError(f"--parameter {refused[0]}: this command sets it itself; fix: leave it out")
    parameters: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    if choices:
        parameters["structured_outputs"] = {"choice": list(CHOICES)}
    if "max_completion_tokens" in given:
        del parameters["max_tokens"]
    return {name: value for name, value in (parameters | given).items() if value is not None}


def _read(inputs: _Inputs) -> tuple[Side, Side, Asked]:
    task = inputs.task
    if (inputs.b is None) == (inputs.baseline is None):
        raise InputError("harness judge: needs B or --baseline reference; fix: give one of them")
    if task is not None and inputs.prompts is not None:
        raise InputError("--prompts: --task says already what was asked; fix: leave one out")
    a = _side(inputs.a, inputs)
    if inputs.b is not None:
        b = _side(inputs.b, inputs)
    elif task is not None:
        b = references(task)
    else:
        raise InputError("--baseline reference: needs the task whose references are meant; fix: --task NAME")
    if task is not None:
        return a, b, prompts_of_task(task)
    if inputs.prompts is not None:
        return a, b, prompts_of_texts(prompts_of_file(inputs.prompts).texts)
    return a, b, prompts_of_answers(a, b)


def _side(text: str, inputs: _Inputs) -> Side:
    """The answers of a file, or with --results of a cell."""
    path = Path(text)
    if inputs.results is None or path.is_file():
        return read_side(path, text)
    if inputs.task is None:
        raise InputError(f"--results: which evaluation of {text} is meant is not said; fix: --task NAME")
    cell, name = find_cell(inputs.results, text.strip("/")), inputs.task.name.replace("/", "+")
    every = sorted(file.parent for file in cell.glob(f"eval/*/{SAMPLES}"))
    found = [folder for folder in every if folder.name.startswith(f"{name}@v")]
    if len(found) == 1:
        return read_side(found[0] / SAMPLES, f"{text.strip('/')} on {found[0].name}")
    there = ", ".join(folder.name for folder in found or every) or "none"
    raise InputError(
        f"{cell}: which evaluation on {name} is meant is not clear (there: {there}); "
        f"fix: instead of cells give two files, as {cell}/eval/NAME/{SAMPLES}"
    )
