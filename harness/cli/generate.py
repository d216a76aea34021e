"""`harness generate`: a model's answers in a file, scored by nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click

from dskd import hub
from dskd.errors import InputError
from dskd.modeling.folders import require_model_folder
from dskd.modeling.loading import load_tokenizer
from harness import tasks
from harness.cli.data_options import SOURCE
from harness.cli.options import COUNT, PATH, generation_options, model_option
from harness.cli.output import stages
from harness.evaluation.generate import Prompts, cache_beside, generate, prompts_of_file, prompts_of_task, token_limits
from harness.protocols import PROTOCOLS
from harness.runs.store import UserFile

EPILOG = """\b
Examples:
  harness generate --model models/student --task humaneval --output answers.jsonl
  harness score --task humaneval --predictions answers.jsonl --allow-code-execution
  harness generate --model models/student --task dolly --protocol minillm-sampling --engine vllm --output answers.jsonl
  harness generate --model models/student --prompts mine.jsonl --max-new-tokens 128 --stop "### " --output answers.jsonl

\b
A line of --prompts: {"id": "a", "prompt": "..."}; of the output: {"id", "index", "output", "finish_reason",
"generated_tokens", "prompt_truncated", "response_format"}, and of a model that reasons {"reasoning", "reasoning_ended",
"reasoning_tokens", "answer_tokens"}, whose "output" is the answer alone, and "reasoning_closed" where --reasoning-end close
has closed it. The answers are those of `harness evaluate`; nothing that the model writes is run.
If interrupted, the same command resumes from the last completions."""


@click.command("generate", epilog=EPILOG)
@model_option
@click.option("--task", "task_name", metavar="TASK", help="Whose prompts are asked; `harness list tasks` has them.")
@click.option("--prompts", type=PATH, metavar=SOURCE, help="Prompts of your own; 256 new tokens unless given.")
@click.option("--limit", type=COUNT, metavar="N", help="The first N prompts.")
@click.option("--stop", multiple=True, metavar="TEXT", help="With --prompts: what ends an answer; repeatable.")
@generation_options
@click.option("--output", required=True, type=PATH, metavar="FILE.jsonl", help="The answers.")
@click.option("--overwrite", is_flag=True, help="Replace the file where it is there.")
def command(
    model: Path,
    task_name: str | None,
    prompts: Path | None,
    limit: int | None,
    max_new_tokens: int | None,
    max_reasoning_tokens: int | None,
    reasoning_end: Literal["cut", "close"] | None,
    stop: tuple[str, ...],
    protocol: str,
    output: Path,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Write a model's answers to a task, or to prompts of your own, into a file. `harness score` scores those to a task."""
    if (task_name is None) == (prompts is None):
        raise InputError("generate: needs either --task or --prompts; fix: give one of them")
    if stop and task_name is not None:
        raise InputError(f"--stop: task {task_name} has its own; fix: leave it out")
    file = UserFile("--output", output)
    if output.is_file() and not overwrite:
        raise InputError(f"--output {output}: is there already; fix: name another file, or --overwrite")
    task = tasks.load(task_name) if task_name is not None else None
    if task is not None:
        task.require_completions()
    preset = PROTOCOLS[protocol].with_reasoning(max_reasoning_tokens, reasoning_end, "--reasoning-end")
    most = max_new_tokens or preset.max_new_tokens
    model = hub.model_folder(model, where="--model")
    if task is not None:
        require_model_folder(model)
        asked = prompts_of_task(task, load_tokenizer(model), limit, most, preset.max_reasoning_tokens)
    else:
        assert prompts is not None
        require_model_folder(model)
        limits = token_limits(load_tokenizer(model), most or 256, preset.max_reasoning_tokens)
        asked = replace(prompts_of_file(prompts, stop=stop, limit=limit), **limits)
    is_file = not output.exists() or output.is_file()
    cache = cache_beside(output, model, settings["engine"], settings["dtype"]) if is_file else None
    with stages() as stage, stage("answers", len(asked.texts) * preset.num_samples) as advance:
        rows = generate(model, asked, protocol=preset, cache=cache, on_finished=advance, **settings)
    file.write(rows)
    if cache is not None:
        cache.unlink(missing_ok=True)
    ended = sum(row["finish_reason"] == "length" for row in rows)
    endless = sum(not row.get("reasoning_ended", True) for row in rows)
    never = f", {endless} without an end of the reasoning" if endless else ""
    closed = sum(bool(row.get("reasoning_closed")) for row in rows)
    never += f", {closed} after reasoning that was closed at its limit" if closed else ""
    click.echo(f"{output}: {len(rows)} answers, {ended} cut at {_limits(asked)} tokens{never}", err=True)
    if task is not None and limit is None:
        code = " --allow-code-execution" if task.runs_code else ""
        click.echo(f"score them: harness score --task {task_name} --predictions {output}{code}", err=True)


def _limits(asked: Prompts) -> str:
    if asked.max_reasoning_tokens is None:
        return str(asked.max_new_tokens)
    return f"{asked.max_reasoning_tokens} (reasoning) or {asked.max_new_tokens - asked.max_reasoning_tokens} (answer)"
