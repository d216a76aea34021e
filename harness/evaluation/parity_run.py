"""A task's prompts to two engines, one after the other, and the comparison of what they answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from dskd.modeling.loading import load_tokenizer, require_model_folder
from dskd.tokenization.prompt_templates import template_of
from harness.engines.base import Sampling
from harness.evaluation.engine_process import Questions, answer
from harness.evaluation.evaluate import prompt_tokens
from harness.evaluation.parity import TOLERANCE, Comparison, find_differences, first_difference, load_logits
from harness.tasks.task import Task

# Opens a stage of so many things to do, and gives the function that is told how many were just done.
Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


def compare_engines(
    model: Path,
    task: Task,
    *,
    engines: tuple[str, str],
    limit: int | None,
    dtype: str,
    tolerance: float | None,
    max_new_tokens: int | None,
    max_batch_size: int | None,
    allow_code_execution: bool,
    stage: Stage,
) -> tuple[Comparison, dict[str, float]]:
    """The comparison, and the seconds that each engine took, its start included.

    InputError before any engine starts for a folder that is no model, data that is not there and code that may not run.
    """
    require_model_folder(model)
    task.check_permission(allow_code_execution)
    docs = task.docs(limit)
    tokenizer = load_tokenizer(model)
    if template_of(tokenizer) is not None:
        task = task.for_template()
    texts = [task.asked(doc, tokenizer) for doc in docs]
    sampling = Sampling(max_new_tokens or task.max_new_tokens, tuple(task.stop))
    longest = max(prompt_tokens(tokenizer, text) for text in texts) + sampling.max_new_tokens
    questions = Questions(model, texts, sampling, longest, dtype, max_batch_size)
    answers, scores, seconds = {}, {}, {}
    for engine in engines:
        start = time.monotonic()
        with stage(f"{engine} answers", len(docs)) as advance:
            answers[engine] = answer(engine, questions, advance)
        seconds[engine] = round(time.monotonic() - start, 1)
    for engine in engines:
        outputs = [each.text for each in answers[engine]]
        scored = task.score_many(docs, outputs, allow_code_execution=allow_code_execution)
        scores[engine] = [score.scores for score in scored]
    first, second = (answers[engine] for engine in engines)
    parted = sum(first_difference(one.ids, other.ids) is not None for one, other in zip(first, second, strict=True))
    differences = []
    if parted:
        with stage("logits where they part", parted) as advance:
            logits_after = load_logits(model, dtype)
            for difference in find_differences(first, second, logits_after, lambda token: tokenizer.decode([token])):
                differences.append(difference)
                advance(1)
    limits = TOLERANCE[dtype] if tolerance is None else tolerance
    return Comparison([doc["id"] for doc in docs], engines, answers, scores, differences, limits), seconds
