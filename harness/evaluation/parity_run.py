"""A task's prompts to two engines, one after the other, and the comparison of what they answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from dskd.modeling.folders import require_model_folder
from dskd.modeling.loading import load_tokenizer
from harness.evaluation.engine_process import EngineRequest, complete_in_process
from harness.evaluation.generate import longest, prompts_of_task, sampling_of
from harness.evaluation.parity import TOLERANCE, EngineComparison, find_differences, first_difference, load_logits
from harness.evaluation.reasoning import score_answers
from harness.protocols import GREEDY
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
) -> tuple[EngineComparison, dict[str, float]]:
    """The comparison, and the seconds that each engine took, its start included.

    InputError before any engine starts for a folder that is no model, data that is not there and code that may not run.
    """
    require_model_folder(model)
    task.require_completions()
    task.check_permission(allow_code_execution)
    docs = task.docs(limit)
    tokenizer = load_tokenizer(model)
    prompts = prompts_of_task(task, tokenizer, limit, max_new_tokens)
    if prompts.chat:
        task = task.as_chat()
    length = longest(tokenizer, prompts, GREEDY)
    texts = list(prompts.texts.values())
    request = EngineRequest(model, texts, sampling_of(prompts, GREEDY), length, dtype, max_batch_size)
    completions, scores, seconds = {}, {}, {}
    for engine in engines:
        start = time.monotonic()
        with stage(f"{engine} answers", len(docs)) as advance:
            completions[engine] = complete_in_process(engine, request, advance)
        seconds[engine] = round(time.monotonic() - start, 1)
    for engine in engines:
        answers = [completion.text for completion in completions[engine]]
        ended = [completion.reasoning_ended for completion in completions[engine]]
        scored = score_answers(task, docs, answers, ended, allow_code_execution=allow_code_execution)
        scores[engine] = [score.scores for score in scored]
    first, second = (completions[engine] for engine in engines)
    parted = sum(first_difference(one.ids, other.ids) is not None for one, other in zip(first, second, strict=True))
    differences = []
    if parted:
        with stage("logits where they part", parted) as advance:
            logits_after = load_logits(model, dtype)
            for difference in find_differences(first, second, logits_after, lambda token: tokenizer.decode([token])):
                differences.append(difference)
                advance(1)
    limits = TOLERANCE[dtype] if tolerance is None else tolerance
    return EngineComparison([doc["id"] for doc in docs], engines, completions, scores, differences, limits), seconds
