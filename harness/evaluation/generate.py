"""Prompts to completions, the one way to them: for an evaluation, `harness generate` and the comparison of engines.

So the same item of a task gets the same prompt, the same end and the same random numbers everywhere. Nothing that the model
writes is run here: completions can be written where the GPU is and scored where the sandbox is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd import hub
from dskd.data.preparation import encode_prompt
from dskd.data.sources import rows_named
from dskd.errors import InputError
from dskd.modeling.folders import parts_of, require_model_folder
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import template_of
from dskd.tokenization.reasoning import markers_of
from harness.engines._reasoning import CompletionReader
from harness.engines._seeds import sample_seed
from harness.engines._types import Completion, Sampling
from harness.evaluation.engine_process import EngineRequest, complete_in_process
from harness.protocols import DecodingProtocol
from harness.runs.identity import FileHashes, Identity
from harness.tasks.task import Task

OWN_PROMPTS = "prompts"  # where a task's name would be
_LIMITS = ("max_new_tokens", "max_reasoning_tokens", "reasoning_end")


@dataclass(frozen=True)
class Prompts:
    """What a model is asked, by id, and where its completions end: `max_new_tokens` are those of reasoning and answer.

    `max_reasoning_tokens` of them are for the reasoning alone; None where there is no such limit.
    `source` is the task's name or OWN_PROMPTS. `chat`: the prompts are instructions in the model's template, so that the
    completions are scored as a chat model's.
    """

    source: str
    texts: dict[str, str]
    stop: tuple[str, ...]
    max_new_tokens: int
    chat: bool
    max_reasoning_tokens: int | None = None


@dataclass(frozen=True)
class SampleRequest:
    """One sample to generate: the `index`-th of its prompt. `generation_seed` is None where nothing is drawn at random."""

    id: str
    index: int
    generation_seed: int | None
    prompt: str
    seed: int  # of its random numbers


def prompts_of_task(
    task: Task,
    tokenizer: Any,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    max_reasoning_tokens: int | None = None,
) -> Prompts:
    """Return the first `limit` prompts of a task, or all, in the model's template where its tokenizer has one.

    InputError for a task that is not scored by completions, and where two documents have the same id.
    """
    task.require_completions()
    chat = template_of(tokenizer) is not None
    if chat:
        task = task.as_chat()
    docs = task.docs(limit)
    texts = {doc["id"]: task.render_prompt(doc, tokenizer) for doc in docs}
    if len(texts) < len(docs):
        raise InputError(f"task {task.name}: two documents have the same id; fix: give each its own")
    limits = token_limits(tokenizer, max_new_tokens or task.max_new_tokens, max_reasoning_tokens)
    return Prompts(task.name, texts, tuple(task.stop), chat=chat, **limits)


def token_limits(tokenizer: Any, max_new_tokens: int, max_reasoning_tokens: int | None) -> dict[str, Any]:
    """Return the limits of `Prompts`: reasoning has one of its own where the model can mark any."""
    reasoning = None if markers_of(tokenizer) is None else max_reasoning_tokens
    return {"max_new_tokens": max_new_tokens + (reasoning or 0), "max_reasoning_tokens": reasoning}


def prompts_of_file(
    path: Path, *, stop: Sequence[str] = (), max_new_tokens: int = 256, limit: int | None = None
) -> Prompts:
    """Return the prompts of rows {"prompt", "id"}, as they are; a row without an id has its number from 0.

    `path` is what `dskd.data.sources.rows_named` takes. InputError for a row without a prompt, and for an id that is no text or appears twice.
    """
    texts: dict[str, str] = {}
    for where, row in rows_named(path):
        text, identifier = row.get("prompt"), row.get("id", str(len(texts)))
        if not isinstance(text, str):
            raise InputError(f'{where}: "prompt" is missing or no text; fix: {{"id": "a", "prompt": "..."}}')
        if not isinstance(identifier, str):
            raise InputError(f'{where}: "id" is no text; fix: write it in quotes, or leave it out')
        if identifier in texts:
            raise InputError(f'{where}: the id "{identifier}" appears twice; fix: give each prompt its own')
        if limit is None or len(texts) < limit:
            texts[identifier] = text
    return Prompts(OWN_PROMPTS, texts, tuple(stop), max_new_tokens, chat=False)


def sample_requests(prompts: Prompts, protocol: DecodingProtocol, seed: int) -> list[SampleRequest]:
    """Return the samples of each prompt in order, generation seed by generation seed; `seed` where the protocol has none."""
    requests = []
    for identifier, text in prompts.texts.items():
        for index in range(protocol.num_samples):
            drawn = protocol.seed_of(index, seed)
            item = f"{prompts.source}/{identifier}"
            own_seed = sample_seed(seed if drawn is None else drawn, item, index % protocol.samples)
            requests.append(SampleRequest(identifier, index, drawn, text, own_seed))
    return requests


def sampling_of(prompts: Prompts, protocol: DecodingProtocol) -> Sampling:
    """Return what a protocol asks of an engine for these prompts."""
    shared = protocol.model_dump(exclude={"name", "seeds", "samples", *_LIMITS})
    reasoning = prompts.max_reasoning_tokens
    end = "cut" if reasoning is None else protocol.reasoning_end
    return Sampling(prompts.max_new_tokens, prompts.stop, max_reasoning_tokens=reasoning, reasoning_end=end, **shared)


def longest(tokenizer: Any, prompts: Prompts, protocol: DecodingProtocol) -> int:
    """Return the number of tokens of the longest prompt together with its completion, at most."""
    lengths = (max(1, len(encode_prompt(tokenizer, text))) for text in prompts.texts.values())
    most = CompletionReader(tokenizer).longest(sampling_of(prompts, protocol))
    return max(min(length, protocol.max_prompt_tokens or length) for length in lengths) + most


def generate(
    model: Path,
    prompts: Prompts,
    *,
    protocol: DecodingProtocol,
    engine: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    max_batch_size: int | None = None,
    cache: Path | None = None,
    on_finished: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Generate the completions of a model folder in a process of its own.

    Args:
        cache: A file that keeps what is finished; the same call with the same file resumes from it.
        on_finished: Called with the number of completions that have just been finished.

    Returns:
        {"id", "index", "output", "finish_reason", "generated_tokens", "prompt_truncated", "response_format"}, in the order
        of the prompts, and where the model reasoned the fields of `generation_fields`; `index` counts the samples of one
        prompt from 0. The format is "chat" where a template asked.

    Raises:
        InputError: As of `harness.engines.create_engine`.
    """
    require_model_folder(model)
    samples = sample_requests(prompts, protocol, seed)
    request = EngineRequest(
        model,
        [sample.prompt for sample in samples],
        sampling_of(prompts, protocol),
        longest(load_tokenizer(model), prompts, protocol),
        dtype,
        max_batch_size,
        seed,
        [sample.seed for sample in samples],
        cache,
    )
    completions = complete_in_process(engine, request, on_finished)
    return [
        {
            "id": sample.id,
            "index": sample.index,
            "output": completion.text,
            **generation_fields(completion),
            "response_format": "chat" if prompts.chat else "completion",
        }
        for sample, completion in zip(samples, completions, strict=True)
    ]


def generation_fields(completion: Completion) -> dict[str, Any]:
    """Return what every file of samples says about how a completion was generated.

    Where the model reasoned there are "reasoning", "reasoning_ended" and the tokens of both parts: the "output" is its answer.
    "reasoning_closed" is there, and true, where the reasoning was closed at its limit; what closed it is not counted.
    """
    fields = {
        "finish_reason": completion.finish_reason,
        "generated_tokens": completion.generated_tokens,
        "prompt_truncated": completion.prompt_truncated,
    }
    if completion.reasoning is None:
        return fields
    return fields | {
        "reasoning": completion.reasoning,
        "reasoning_ended": completion.reasoning_ended,
        "reasoning_tokens": completion.reasoning_tokens,
        "answer_tokens": completion.generated_tokens - completion.reasoning_tokens,
        **({"reasoning_closed": True} if completion.closing_tokens else {}),
    }


def cache_beside(output: Path, model: Path, engine: str, dtype: str) -> Path:
    """Return the file that keeps completions until all are there: beside the output, by the model's weights, engine and dtype."""
    parts: dict[str, Any] = {**_known_by(model), "engine": engine, "dtype": dtype}
    return output.with_name(f".{output.name}.{Identity.of(parts).hash[:12]}.answers")


def _known_by(model: Path) -> dict[str, Any]:
    """What tells a model from others: the commit of a folder of the hub's cache, and of an adapter's base there; else hashes of its files."""
    hashes, snapshot, base = FileHashes(), hub.snapshot_of(model), hub.base_on_hub(model)
    if snapshot is None:
        return {"model": hashes.model_folder(model), "tokenizer": hashes.tokenizer_folder(model)}
    return {
        "model": str(snapshot),
        "base": None if base is None else f"{base.repo}@{parts_of(model).model.name}",
    }
