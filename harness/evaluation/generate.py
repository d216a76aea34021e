"""Answers of a model, scored by nobody: to a task's prompts, or to prompts of the user's own.

They are those of an evaluation: the same prompts, the same ends, the same random numbers for the same item of a task. Nothing that
the model writes is run, so answers can be written where the GPU is and scored where the sandbox is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from dskd.modeling.loading import load_tokenizer, require_model_folder
from dskd.tokenization.prompt_templates import template_of
from harness.engines._seeds import sample_seed
from harness.engines.base import Sampling
from harness.evaluation.engine_process import Questions, answer
from harness.evaluation.evaluate import drawing, prompt_tokens
from harness.protocols import Protocol
from harness.runs.identity import FileHashes, Identity
from harness.tasks.task import Task

OWN_PROMPTS = "prompts"  # where a task's name would stand


@dataclass(frozen=True)
class Prompts:
    """What a model is asked, by id, and where its answers end. `source`: the task's name, or OWN_PROMPTS."""

    source: str
    texts: dict[str, str]
    stop: tuple[str, ...]
    max_new_tokens: int
    chat: bool  # whether a template asks for the answers, so that they are scored as those of a chat model


def prompts_of_task(task: Task, model: Path, limit: int | None = None) -> Prompts:
    """The first `limit` prompts of a task, or all, as the model's folder has them asked: in its template where it has one."""
    require_model_folder(model)
    tokenizer = load_tokenizer(model)
    chat = template_of(tokenizer) is not None
    if chat:
        task = task.for_template()
    texts = {doc["id"]: task.asked(doc, tokenizer) for doc in task.docs(limit)}
    return Prompts(task.name, texts, tuple(task.stop), task.max_new_tokens, chat)


def prompts_of_file(
    path: Path, *, stop: Sequence[str] = (), max_new_tokens: int = 256, limit: int | None = None
) -> Prompts:
    """Prompts of a file of lines {"prompt", "id"}, given to the model as they are; without an id the row number from 0 is it.

    InputError for a line without a prompt, an id that is no text or stands twice.
    """
    texts: dict[str, str] = {}
    for line, row in read_objects(path):
        text, identifier = row.get("prompt"), row.get("id", str(len(texts)))
        if not isinstance(text, str):
            raise InputError(f'{path}:{line}: "prompt" is missing or no text; fix: {{"id": "a", "prompt": "..."}}')
        if not isinstance(identifier, str):
            raise InputError(f'{path}:{line}: "id" is no text; fix: write it in quotes, or leave it out')
        if identifier in texts:
            raise InputError(f'{path}:{line}: the id "{identifier}" stands twice; fix: give each prompt its own')
        if limit is None or len(texts) < limit:
            texts[identifier] = text
    return Prompts(OWN_PROMPTS, texts, tuple(stop), max_new_tokens, chat=False)


def generate(
    model: Path,
    prompts: Prompts,
    *,
    protocol: Protocol,
    engine: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    max_batch_size: int | None = None,
    kept: Path | None = None,
    on_finished: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """The answers, in the order of the prompts: {"id", "index", "output", "finish_reason", "generated_tokens", "prompt_truncated"}.

    `index` counts the answers to one prompt from 0. `kept` is a file that holds what is answered so far: the same call with the
    same file goes on from there. InputError as of `harness.engines.create_engine`.
    """
    require_model_folder(model)
    tokenizer = load_tokenizer(model)
    asked = [
        (identifier, text, sample_seed(generation_seed, f"{prompts.source}/{identifier}", number))
        for identifier, text in prompts.texts.items()
        for generation_seed in protocol.seeds or (seed,)
        for number in range(protocol.samples)
    ]
    sampling = Sampling.from_lm_eval(
        {"until": list(prompts.stop), "max_gen_toks": prompts.max_new_tokens, **drawing(protocol)}
    )
    questions = Questions(
        model,
        [text for _, text, _ in asked],
        sampling,
        max(prompt_tokens(tokenizer, text, protocol) for text in prompts.texts.values()) + prompts.max_new_tokens,
        dtype,
        max_batch_size,
        seed,
        [own for _, _, own in asked],
        kept,
    )
    answers = answer(engine, questions, on_finished)
    return list(_rows([identifier for identifier, _, _ in asked], answers))


def _rows(identifiers: Sequence[str], answers: Sequence[Any]) -> Iterator[dict[str, Any]]:
    index = 0
    for place, (identifier, found) in enumerate(zip(identifiers, answers, strict=True)):
        index = index + 1 if place and identifiers[place - 1] == identifier else 0
        yield {
            "id": identifier,
            "index": index,
            "output": found.text,
            "finish_reason": found.finish_reason,
            "generated_tokens": len(found.ids),
            "prompt_truncated": found.prompt_truncated,
        }


def file_of_kept_answers(output: Path, model: Path, engine: str, dtype: str) -> Path:
    """Where answers are kept until all are there: beside the output, by the model's weights, engine and dtype."""
    hashes = FileHashes()
    parts = {
        "model": hashes.model_folder(model),
        "tokenizer": hashes.tokenizer_folder(model),
        "engine": engine,
        "dtype": dtype,
    }
    return output.with_name(f".{output.name}.{Identity.of(parts).hash[:12]}.answers")
