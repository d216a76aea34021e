"""Evaluation by generation: a model folder and tasks to answers and scores, through lm-eval.

lm-eval asks the engine for answers and hands them to the task's scoring (`harness.tasks.task`); here both are joined for each sample.
"""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.filters import build_filter_ensemble
from pydantic import BaseModel, ConfigDict, Field

from dskd.data.preparation import encode_prompt
from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer, require_model_folder
from dskd.tokenization.prompt_templates import describe, template_of
from harness import tasks as known_tasks
from harness.engines import create_engine
from harness.engines._completion_cache import AnswerStore
from harness.protocols import GREEDY, Protocol
from harness.tasks.lm_eval_hooks import loaded, score_outputs_of
from harness.tasks.task import Task


class EvaluationOptions(BaseModel):
    """How one task is evaluated, where it differs from its task.yaml. `limit`: the first so many documents.

    `task`: which, where it goes by another name. `max_new_tokens` goes before the protocol's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(default=None, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    task: str | None = None
    protocol: Protocol = GREEDY


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is: samples answered, of those of all tasks; tasks answered and scored; the current task's name."""

    task: str
    tasks_done: int
    tasks_total: int
    samples_done: int
    samples_total: int


@dataclass(frozen=True)
class TaskRun:
    """The answers of a model on one task and their scores.

    A sample is {"id", "index", "seed", "prompt", "output", "gold", "scores", "extracted", "outcome", "finish_reason",
    "generated_tokens", "prompt_truncated"}, with "detail" where scoring has more to say; in the order of the task's documents, and
    those of one document by `index`, from 0; `seed` is the generation seed, None where nothing was drawn. `seconds` is the time of
    generation and scoring, loading the model left out. `template` is that of the model (`dskd.tokenization.prompt_templates.describe`). `name` is what
    it was asked for by.
    """

    name: str
    task: str
    version: str
    engine: str
    samples: list[dict[str, Any]]
    seconds: float
    generated_tokens: int
    template: dict[str, Any] | None = None


def evaluate(
    model: Path,
    tasks: Mapping[str, EvaluationOptions],
    *,
    engine: str = "auto",
    seed: int = 0,
    allow_code_execution: bool = False,
    progress: Callable[[Progress], None] | None = None,
    max_batch_size: int | None = None,
    dtype: str = "float32",
    answers: Callable[[str], AnswerStore] | None = None,
) -> Iterator[TaskRun]:
    """Answer and score the tasks one after another, and give each as it is done.

    `tasks` are by name, of the task itself unless its options say which; one may stand there under several protocols.
    Checks everything before it loads the model: InputError for an unknown task or engine, a task that runs code when that was not
    allowed, data that is not there, and a folder that is no model. Random seeds are set for each task, so that the result of one
    does not depend on which others run. `answers` gives the store of a task's answers, so that an evaluation that is killed goes on
    from there. What libraries print goes to standard error.
    """
    require_model_folder(model)
    if not tasks:
        raise InputError("no tasks to evaluate; fix: name at least one")
    chosen = {name: known_tasks.load(options.task or name) for name, options in tasks.items()}
    for task in chosen.values():
        task.check_permission(allow_code_execution)
    docs = {name: task.docs(tasks[name].limit) for name, task in chosen.items()}
    tokenizer = load_tokenizer(model)
    if template_of(tokenizer) is not None:
        chosen = {name: task.for_template() for name, task in chosen.items()}
    longest = max(
        prompt_tokens(tokenizer, chosen[name].asked(doc, tokenizer), tasks[name].protocol)
        + _max_new_tokens(chosen[name], tasks[name])
        for name in chosen
        for doc in docs[name]
    )
    with _quiet():
        lm = create_engine(
            engine,
            model,
            seed=seed,
            max_batch_size=max_batch_size,
            max_length=longest,
            dtype=dtype,
            no_repeat_ngram=any(options.protocol.no_repeat_ngram for options in tasks.values()),
        )
    return _run(lm, tokenizer, chosen, tasks, docs, seed, allow_code_execution, progress or _ignore, answers)


def _run(
    lm: Any,
    tokenizer: Any,
    chosen: Mapping[str, Task],
    options: Mapping[str, EvaluationOptions],
    docs: Mapping[str, list[dict[str, Any]]],
    seed: int,
    allow_code_execution: bool,
    progress: Callable[[Progress], None],
    answers: Callable[[str], AnswerStore] | None,
) -> Iterator[TaskRun]:
    done, total = 0, sum(len(each) * options[name].protocol.answers for name, each in docs.items())
    try:
        for number, (name, task) in enumerate(chosen.items()):

            def finished(count: int, name: str = name, number: int = number) -> None:
                nonlocal done
                done += count
                progress(Progress(name, number, len(chosen), done, total))

            lm.on_finished = finished
            lm.answers = answers(name) if answers is not None else None
            finished(0)
            start = time.perf_counter()
            with _quiet():
                logged = _lm_eval(lm, tokenizer, task, options[name], seed, allow_code_execution)
            samples = _join(task, docs[name], logged, lm.generations, tokenizer, options[name].protocol, seed)
            yield TaskRun(
                name=name,
                task=task.name,
                version=task.version,
                engine=lm.name,
                samples=samples,
                seconds=time.perf_counter() - start,
                generated_tokens=sum(sample["generated_tokens"] for sample in samples),
                template=describe(tokenizer),
            )
            progress(Progress(name, number + 1, len(chosen), done, total))
    finally:
        lm.close()


def _lm_eval(
    lm: Any, tokenizer: Any, task: Task, options: EvaluationOptions, seed: int, allow_code_execution: bool
) -> list[dict[str, Any]]:
    """lm-eval's log of the samples of one task.

    What `lm_eval.simple_evaluate` does, less its look at the machine (every installed package, git), which takes seconds.
    """
    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002 - lm-eval and tasks may use the global state
    torch.manual_seed(seed)
    as_loaded = loaded(task)
    lm_task = as_loaded["tasks"][task.name]
    limits = {"max_gen_toks": _max_new_tokens(task, options), "until": task.stop}
    lm_task.set_config("generation_kwargs", {**limits, **drawing(options.protocol)}, update=True)
    lm_task.set_config("repeats", options.protocol.answers)
    if template_of(tokenizer) is not None:
        # The model's template around the task's instruction, and the scoring that goes with it.
        lm_task.set_config("doc_to_text", lambda doc: task.asked(doc, tokenizer))
        scoring = {"filter_fn": lambda outputs, docs: score_outputs_of(task, outputs, docs)}
        lm_task._filters = [build_filter_ensemble("harness", [["custom", scoring]])]
    lm_task.set_fewshot_seed(seed=seed)
    results = lm_evaluate(
        lm,
        as_loaded,
        limit=options.limit,
        bootstrap_iters=0,  # intervals are the harness's own
        log_samples=True,
        confirm_run_unsafe_code=allow_code_execution,
    )
    assert results is not None
    return sorted(results["samples"][task.name], key=lambda sample: sample["doc_id"])


def _join(
    task: Task,
    docs: list[dict[str, Any]],
    logged: list[dict[str, Any]],
    generations: list[Any],
    tokenizer: Any,
    protocol: Protocol,
    seed: int,
) -> list[dict[str, Any]]:
    """The samples of each document. RuntimeError if lm-eval, the engine and the task do not agree on what was asked."""
    each = protocol.answers
    if not len(docs) == len(logged) == len(generations) / each:
        raise RuntimeError(
            f"task {task.name}: {len(docs)} documents, {len(generations)} answers, {len(logged)} scores: "
            f"{f'{each} answers and a score' if each > 1 else 'one'} each is needed"
        )
    samples = []
    for number, (doc, entry) in enumerate(zip(docs, logged, strict=True)):
        prompt = entry["arguments"][0][0]
        (outputs,), (scores,) = entry["resps"], entry["filtered_resps"]
        answers = zip(outputs, scores, generations[number * each : (number + 1) * each], strict=True)
        for index, (output, score, generation) in enumerate(answers):
            if entry["doc"]["id"] != doc["id"] or prompt != task.asked(doc, tokenizer) or output != generation.text:
                raise RuntimeError(
                    f"task {task.name}, document {doc['id']}: what was scored is not the answer to its prompt"
                )
            samples.append(
                {
                    "id": doc["id"],
                    "index": index,
                    "seed": protocol.seed_of(index, seed),
                    "prompt": prompt,
                    "output": output,
                    "gold": task.gold(doc),
                    **score.as_dict(),
                    "finish_reason": generation.finish_reason,
                    "generated_tokens": generation.generated_tokens,
                    "prompt_truncated": generation.prompt_truncated,
                }
            )
    return samples


def drawing(protocol: Protocol) -> dict[str, Any]:
    """A protocol as generation_kwargs (`harness.engines.base.Sampling`)."""
    settings = {
        "do_sample": protocol.temperature > 0,
        "temperature": protocol.temperature,
        "top_p": protocol.top_p,
        "top_k": protocol.top_k,
        "no_repeat_ngram_size": protocol.no_repeat_ngram,
        "max_prompt_tokens": protocol.max_prompt_tokens,
        "prompt_kept": protocol.prompt_kept,
        "samples": protocol.samples,
    }
    return settings if protocol.seeds is None else {**settings, "seeds": list(protocol.seeds)}


def prompt_tokens(tokenizer: Any, text: str, protocol: Protocol = GREEDY) -> int:
    """How many ids of a text a model is given, at most."""
    tokens = max(1, len(encode_prompt(tokenizer, text)))
    return min(tokens, protocol.max_prompt_tokens or tokens)


def _max_new_tokens(task: Task, options: EvaluationOptions) -> int:
    return options.max_new_tokens or options.protocol.max_new_tokens or task.max_new_tokens


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep standard output for data, and what lm-eval says about its own command line out of the log."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)


def _ignore(_: Progress) -> None:
    pass
