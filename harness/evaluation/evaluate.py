"""Evaluation: a model folder and tasks to samples with scores.

A task's prompts (`harness.evaluation.generate`) go to an engine, and its completions to the task's scoring
(`harness.tasks.task.Task.score_many`). Of a task scored by log-likelihoods it is contexts and continuations
(`harness.evaluation.loglikelihoods`).
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from pydantic import BaseModel, ConfigDict, Field

from dskd.errors import InputError
from dskd.modeling.folders import require_model_folder
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import describe
from harness import tasks as known_tasks
from harness.engines._blocks import AskedPrompts
from harness.engines._completion_cache import CompletionCache
from harness.engines._parts import PartsEngine, open_engine
from harness.engines._types import Completion, Sampling
from harness.evaluation.generate import (
    Prompts,
    SampleRequest,
    generation_fields,
    longest,
    prompts_of_task,
    sample_requests,
    sampling_of,
)
from harness.evaluation.loglikelihoods import LogLikelihoodWork
from harness.evaluation.reasoning import score_answers
from harness.evaluation.summary import category_field
from harness.protocols import GREEDY, DecodingProtocol
from harness.tasks.loglikelihood_task import LogLikelihoodTask
from harness.tasks.task import Doc, Task


class EvaluationOptions(BaseModel):
    """How one task is evaluated, where that differs from the task itself. `limit`: the first so many documents.

    `task`: which, where it goes by another name. `max_new_tokens` has precedence over the protocol's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(default=None, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    task: str | None = None
    protocol: DecodingProtocol = GREEDY


@dataclass(frozen=True)
class EvaluationProgress:
    """How far an evaluation is: finished samples, of those of all tasks; finished tasks; the current task's name.

    Of a task scored by log-likelihoods each continuation counts as a sample.
    """

    task: str
    tasks_done: int
    tasks_total: int
    samples_done: int
    samples_total: int


@dataclass(frozen=True)
class TaskRun:
    """The samples of a model on one task.

    A sample is {"id", "index", "seed", "prompt", "output", "gold", "scores", "extracted", "outcome", "finish_reason",
    "generated_tokens", "prompt_truncated"}; with "detail" and "weights" where scoring has more to say, "category" where documents
    have one, and the fields of `harness.evaluation.generate.generation_fields` where the model reasoned. "output" is what was scored.
    Samples are in the order of the task's documents, those of one document by `index` from 0; `seed` is the generation seed, None where
    nothing was drawn at random. Of a task scored by log-likelihoods nothing was generated: "output" is what the model chose, and
    "loglikelihoods" has for each continuation {"text", "value", "is_greedy", "tokens"}; there is no "finish_reason".
    `seconds` is the time of generation and scoring without that of loading the model. `template` is the model's
    (`dskd.tokenization.prompt_templates.describe`), None where it was not used. `name` is what the task was asked for by.
    `peak_memory`: bytes of memory and of a GPU's, of the process that used most; None where this process did the work.
    """

    name: str
    task: str
    version: str
    engine: str
    samples: list[dict[str, Any]]
    seconds: float
    generated_tokens: int
    template: dict[str, Any] | None = None
    peak_memory: tuple[int, int | None] | None = None


@dataclass(frozen=True)
class _Work:
    """One task to evaluate: `task` as the model is asked it, with its template where the model has one."""

    task: Task
    docs: dict[str, Doc]
    prompts: Prompts
    requests: list[SampleRequest]
    protocol: DecodingProtocol

    @property
    def size(self) -> int:
        return len(self.requests)

    def length(self, tokenizer: Any) -> int:
        return longest(tokenizer, self.prompts, self.protocol)

    def asked(self, engine: Any) -> AskedPrompts:
        return engine.asked(*self._request)

    def samples(self, engine: Any, allow_code_execution: bool) -> list[dict[str, Any]]:
        return _scored(self, engine.complete(*self._request), allow_code_execution)

    @property
    def _request(self) -> tuple[list[str], Sampling, list[int]]:
        prompts, seeds = [each.prompt for each in self.requests], [each.seed for each in self.requests]
        return prompts, sampling_of(self.prompts, self.protocol), seeds


def evaluate(
    model: Path,
    tasks: Mapping[str, EvaluationOptions],
    *,
    engine: str = "auto",
    seed: int = 0,
    allow_code_execution: bool = False,
    progress: Callable[[EvaluationProgress], None] | None = None,
    max_batch_size: int | None = None,
    dtype: str = "float32",
    cache: Callable[[str], CompletionCache] | None = None,
    parts: int = 1,
    tensor_parallel: int = 1,
    before_block: Callable[[], None] | None = None,
) -> Iterator[TaskRun]:
    """Complete and score the tasks one after another, and give each as it is done.

    Random seeds are set for each task, so that its result does not depend on which others run. What libraries print goes to
    standard error.

    Args:
        model: A model folder.
        tasks: By name: of the task itself, unless its options say which. So one task may be there under several protocols.
        cache: Gives the cache of a task's completions, so that a killed evaluation resumes.
        parts: Processes that generate, each with the whole model. The samples do not depend on it.
        tensor_parallel: GPUs that share the model, in each of them.
        before_block: Called before each block of completions that is computed; it may raise, and what was finished is in the cache.

    Raises:
        InputError: Before the model is loaded: an unknown task or engine, a task that runs code when that was not allowed,
            absent data, too few GPUs, and a folder that is no model.
    """
    require_model_folder(model)
    if not tasks:
        raise InputError("tasks: there are none to evaluate; fix: name at least one")
    chosen = {name: known_tasks.load(options.task or name) for name, options in tasks.items()}
    for task in chosen.values():
        task.check_permission(allow_code_execution)
    docs = {name: task.docs(tasks[name].limit) for name, task in chosen.items()}
    tokenizer = load_tokenizer(model)
    work = {name: _work(task, docs[name], tokenizer, tasks[name], seed) for name, task in chosen.items()}
    protocols = [each.protocol for each in work.values() if isinstance(each, _Work)]
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for data
        lm = open_engine(
            engine,
            model,
            seed=seed,
            max_batch_size=max_batch_size,
            max_length=max(each.length(tokenizer) for each in work.values()),
            dtype=dtype,
            no_repeat_ngram=any(protocol.no_repeat_ngram for protocol in protocols),
            parts=parts,
            tensor_parallel=tensor_parallel,
        )
    lm.before_block = before_block
    return _run(lm, describe(tokenizer), work, seed, allow_code_execution, progress or (lambda _: None), cache)


def _work(
    task: Task, docs: Sequence[Doc], tokenizer: Any, options: EvaluationOptions, seed: int
) -> _Work | LogLikelihoodWork:
    protocol = options.protocol
    if isinstance(task, LogLikelihoodTask):
        task.check_protocol(protocol.with_length(options.max_new_tokens, 0))
        return LogLikelihoodWork.of(task, docs)
    most = options.max_new_tokens or protocol.max_new_tokens
    prompts = prompts_of_task(task, tokenizer, options.limit, most, protocol.max_reasoning_tokens)
    asked, by_id = task.as_chat() if prompts.chat else task, {doc["id"]: doc for doc in docs}
    return _Work(asked, by_id, prompts, sample_requests(prompts, protocol, seed), protocol)


def _run(
    lm: Any,
    template: dict[str, Any] | None,
    work: Mapping[str, _Work | LogLikelihoodWork],
    seed: int,
    allow_code_execution: bool,
    progress: Callable[[EvaluationProgress], None],
    cache: Callable[[str], CompletionCache] | None,
) -> Iterator[TaskRun]:
    done, total = 0, sum(each.size for each in work.values())
    caches = {name: cache(name) for name in work} if cache is not None else {}
    try:
        for number, (name, each) in enumerate(work.items()):

            def finished(count: int, name: str = name, number: int = number) -> None:
                nonlocal done
                done += count
                progress(EvaluationProgress(name, number, len(work), done, total))

            lm.on_finished = finished
            lm.cache = caches.get(name)
            progress(EvaluationProgress(name, number, len(work), done, total))
            if number == 0 and isinstance(lm, PartsEngine):
                # So that no process waits for the end of a task.
                for other, later in work.items():
                    lm.begin(later.asked(lm).blocks, caches.get(other))
            start = time.perf_counter()
            with contextlib.redirect_stdout(sys.stderr):
                # The global seeds, which an engine of one's own or a filter of lm-eval may use.
                random.seed(seed)
                numpy.random.seed(seed)  # noqa: NPY002 - the global state is meant
                torch.manual_seed(seed)
                samples = each.samples(lm, allow_code_execution)
            seconds, tokens = time.perf_counter() - start, sum(sample["generated_tokens"] for sample in samples)
            used = None if isinstance(each, LogLikelihoodWork) else template
            own = (lm.peak_memory, lm.peak_device_memory) if isinstance(lm, PartsEngine) else None
            yield TaskRun(name, each.task.name, each.task.version, lm.name, samples, seconds, tokens, used, own)
            progress(EvaluationProgress(name, number + 1, len(work), done, total))
    finally:
        lm.close()


def _scored(work: _Work, completions: Sequence[Completion], allow_code_execution: bool) -> list[dict[str, Any]]:
    docs = [work.docs[request.id] for request in work.requests]
    scores = score_answers(
        work.task,
        docs,
        [completion.text for completion in completions],
        [completion.reasoning_ended for completion in completions],
        allow_code_execution=allow_code_execution,
    )
    return [
        {
            "id": request.id,
            "index": request.index,
            "seed": request.generation_seed,
            "prompt": request.prompt,
            "output": completion.text,
            "gold": work.task.reference(doc),
            **category_field(work.task, doc),
            **score.as_dict(),
            **generation_fields(completion),
        }
        for request, doc, completion, score in zip(work.requests, docs, completions, scores, strict=True)
    ]
