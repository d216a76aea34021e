"""The shards of a teacher cache, made of an engine's answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dskd.errors import TrainingFailed
from dskd.teachers.cache_engine import OpenedEngine
from dskd.teachers.cache_source import CacheSource
from dskd.teachers.kept_outputs import kept
from dskd.teachers.questions import Question


def answered_shards(
    source: CacheSource,
    opened: OpenedEngine,
    ranges: list[tuple[int, int]],
    missing: list[int],
    batch_tokens: int,
    tell: Callable[[dict[str, Any]], None],
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Ask an engine about the rows of shards.

    Args:
        source: What it is asked.
        opened: The engine.
        ranges: Rows of all shards.
        missing: Numbers of the shards that are wanted.
        batch_tokens: What it is asked at a time, with padding.
        tell: Called with {"step", "steps"} in rows.

    Yields:
        (number, tensors) of each shard, rows one after the other.
    """
    offsets, total = source.index.offsets, len(source.index.digests)
    left = {number: ranges[number][1] - ranges[number][0] for number in missing}
    done = total - sum(left.values())
    shard: dict[str, Tensor] = {}
    for number, rows, questions, answers in _answers(source, opened, ranges, missing, batch_tokens):
        first, last = ranges[number]
        sizes = [len(question.positions) for question in questions]
        for name, value in _kept(source, opened, questions, answers).items():
            if name not in shard:
                shape = (int(offsets[last] - offsets[first]), *value.shape[1:])
                shard[name] = torch.empty(shape, dtype=value.dtype)
            for row, part in zip(rows, value.cpu().split(sizes), strict=True):
                shard[name][offsets[row] - offsets[first] : offsets[row + 1] - offsets[first]] = part
        left[number] -= len(rows)
        done += len(rows)
        tell({"step": done, "steps": total})
        if not left[number]:
            yield number, shard
            shard = {}


def _answers(
    source: CacheSource,
    opened: OpenedEngine,
    ranges: list[tuple[int, int]],
    missing: list[int],
    batch_tokens: int,
) -> Iterator[tuple[int, list[int], list[Question], dict[str, Tensor]]]:
    """(shard, rows, questions, answers) of each batch, shard by shard. Several are asked at a time, also of the shard that follows."""
    waiting: deque[tuple[int, list[int], list[Question], Any]] = deque()

    def first() -> tuple[int, list[int], list[Question], dict[str, Tensor]]:
        number, rows, questions, future = waiting.popleft()
        return number, rows, questions, checked(source, questions, future.result())

    for number in missing:
        for rows in source.batches(*ranges[number], batch_tokens):
            questions = source.questions(rows)
            waiting.append((number, rows, questions, opened.engine.ask(questions)))
            if len(waiting) >= opened.ahead:
                yield first()
    while waiting:
        yield first()


def checked(source: CacheSource, questions: Sequence[Question], answers: dict[str, Tensor]) -> dict[str, Tensor]:
    """An engine's answers, if they are numbers for every position; else TrainingFailed."""
    positions = sum(len(question.positions) for question in questions)
    for name, value in answers.items():
        if len(value) != positions or (name == "hidden" and value.shape[1] != source.head_shape[1]):
            raise TrainingFailed(
                f"{source.teacher}: {name} of shape {list(value.shape)} for {positions} positions and a hidden size of "
                f"{source.head_shape[1]}; fix: run the model of this folder"
            )
        # Where a teacher has fewer than k tokens, minus infinity stands for the others.
        wrong = ~value.isfinite() if name == "hidden" else value.isnan() | (value == torch.inf)
        if bool(wrong.any()):
            what = "hidden states" if name == "hidden" else name.replace("_", " ")
            raise TrainingFailed(
                f"{source.teacher}: gives {what} that are not finite in {source.dtype}; fix: use another dtype"
            )
    return answers


def _kept(
    source: CacheSource, opened: OpenedEngine, questions: Sequence[Question], answers: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors that are stored for these questions."""
    if opened.head is None:  # log-probabilities, as they are
        return answers
    labels = torch.tensor([label for question in questions for label in question.labels])
    hidden = answers["hidden"].to(opened.head.weight.device)
    return kept(source.options, opened.head, hidden, labels, source.stored_dtype, source.teacher)
