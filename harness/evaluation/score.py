"""Files of predictions to scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from dskd.tokenization.reasoning import ReasoningMarkers, split_reasoning
from harness.evaluation.reasoning import score_answers
from harness.evaluation.summary import category_field, summarise
from harness.tasks.task import Task

_TOKENS = ("generated_tokens", "reasoning_tokens", "answer_tokens")


@dataclass(frozen=True)
class Prediction:
    """One line of a file of predictions; `line` is its number, from 1.

    `reasoning` is what the model wrote before the `output`, None without; `tokens` are the counts that the line has.
    """

    line: int
    id: str
    output: str
    finish_reason: str | None
    reasoning: str | None = None
    reasoning_ended: bool = True
    reasoning_closed: bool = False
    tokens: Mapping[str, int] = field(default_factory=dict)

    def fields(self, *, with_tokens: bool) -> dict[str, Any]:
        """Return what its sample says of how it was generated."""
        reasoning = {"reasoning": self.reasoning, "reasoning_ended": self.reasoning_ended}
        return {
            **({} if self.finish_reason is None else {"finish_reason": self.finish_reason}),
            **({} if self.reasoning is None else reasoning),
            **({"reasoning_closed": True} if self.reasoning_closed else {}),
            **(self.tokens if with_tokens else {}),
        }


def score_predictions(
    task: Task,
    predictions: Path,
    *,
    allow_code_execution: bool = False,
    reasoning: ReasoningMarkers | None = None,
    prompt_opens: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Score a file of predictions against the whole test set of a task.

    Args:
        reasoning: What marks the reasoning within the outputs, to be cut; lines with a "reasoning" are cut already.
        prompt_opens: Whether the prompts ended with the opening marker.
        progress: Called with how many are done, of how many.

    Returns the samples, in the data set's order ({"id", "index", "scores", "extracted", "outcome"}, and "detail",
    "finish_reason" and what belongs to reasoning where there is some), and their `summarise`.

    InputError, before anything is scored: no permission to run code, no data, a broken line, an id that the data set
    does not have, or one of it that the file lacks (a subset is never scored as if it were the whole).
    """
    task.check_permission(allow_code_execution)
    docs = task.docs()
    read = [_cut(line, reasoning, opened=prompt_opens) for line in read_predictions(predictions)]
    lines = _in_order(read, [doc["id"] for doc in docs], predictions)
    by_id = {doc["id"]: doc for doc in docs}
    done = count(1)

    def advance() -> None:
        if progress is not None:
            progress(next(done), len(lines))

    scores = score_answers(
        task,
        [by_id[line.id] for _, line in lines],
        [line.output for _, line in lines],
        [line.reasoning_ended for _, line in lines],
        allow_code_execution=allow_code_execution,
        advance=advance,
    )
    samples = []
    reasons = any(line.reasoning is not None for _, line in lines)
    for (index, line), score in zip(lines, scores, strict=True):
        own = {**category_field(task, by_id[line.id]), **score.as_dict(), **line.fields(with_tokens=reasons)}
        samples.append({"id": line.id, "index": index, **own})
    return samples, summarise(task, samples)


def read_predictions(path: Path) -> list[Prediction]:
    """Read lines {"id", "output"}, "finish_reason" where there is one, and what `harness generate` writes of reasoning.

    Other keys are ignored.

    InputError names the file and the line that is broken.
    """
    return [_prediction(row, f"{path}:{number}", number) for number, row in read_objects(path, half_pairs=True)]


def format_of_predictions(path: Path) -> str:
    """Return how the predictions were asked for: what `harness generate` wrote into each line, else "completion".

    InputError where lines differ.
    """
    formats = {row.get("response_format", "completion") for _, row in read_objects(path, half_pairs=True)}
    if len(formats) > 1 or not formats <= {"completion", "chat"}:
        raise InputError(
            f'{path}: "response_format" is {" and ".join(sorted(map(str, formats)))}; fix: score one format at a time'
        )
    return next(iter(formats), "completion")


def _prediction(fields: Mapping[str, Any], where: str, number: int) -> Prediction:
    for key, types, kind in (("id", (str, int), "a string"), ("output", (str,), "a string")):
        if key not in fields:
            raise InputError(f'{where}: key "{key}" is missing; fix: write {{"id": ..., "output": ...}}')
        if not isinstance(fields[key], types) or isinstance(fields[key], bool):
            raise InputError(f'{where}: key "{key}" is {json.dumps(fields[key])[:80]}; fix: make it {kind}')
    reason = fields.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise InputError(f'{where}: key "finish_reason" is {json.dumps(reason)[:80]}; fix: make it "stop" or "length"')
    # Half a surrogate pair is no text and cannot be written: it becomes what a decoder puts for it.
    output = fields["output"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Prediction(number, str(fields["id"]), output, reason, **_reasoning(fields, where))


def _reasoning(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    reasoning, ended = fields.get("reasoning"), fields.get("reasoning_ended", True)
    tokens = {key: fields[key] for key in _TOKENS if type(fields.get(key)) is int}
    if not isinstance(reasoning, str):
        return {"tokens": tokens}
    if not isinstance(ended, bool):
        raise InputError(f'{where}: key "reasoning_ended" is {json.dumps(ended)[:80]}; fix: make it true or false')
    closed = fields.get("reasoning_closed") is True
    return {"reasoning": reasoning, "reasoning_ended": ended, "reasoning_closed": closed, "tokens": tokens}


def _cut(line: Prediction, markers: ReasoningMarkers | None, *, opened: bool) -> Prediction:
    """The line with its reasoning taken out of the output."""
    if markers is None or line.reasoning is not None:
        return line
    split = split_reasoning(line.output, markers, opened=opened)
    return replace(line, output=split.answer, reasoning=split.reasoning, reasoning_ended=split.ended)


def _in_order(predictions: Sequence[Prediction], ids: Sequence[str], path: Path) -> list[tuple[int, Prediction]]:
    """Return the predictions in the order of the data set's ids, each with its number among those of its id."""
    by_id: dict[str, list[Prediction]] = {identifier: [] for identifier in ids}
    if unknown := [prediction for prediction in predictions if prediction.id not in by_id]:
        names = _some([prediction.id for prediction in unknown], "unknown id")
        raise InputError(f"{path}:{unknown[0].line}: {names}; fix: use the data set's ids, {ids[0]!r} to {ids[-1]!r}")
    for prediction in predictions:
        by_id[prediction.id].append(prediction)
    if missing := [identifier for identifier, found in by_id.items() if not found]:
        raise InputError(
            f"{path}: no prediction for {_some(missing, 'id')} of {len(ids)}; fix: add them: a subset is not scored"
        )
    return [(index, prediction) for found in by_id.values() for index, prediction in enumerate(found)]


def _some(ids: Sequence[str], what: str) -> str:
    """Name up to five ids, and say how many there are."""
    distinct = list(dict.fromkeys(ids))
    listed = ", ".join(repr(identifier) for identifier in distinct[:5])
    return f"{len(distinct)} {what}{'s' if len(distinct) > 1 else ''} ({listed}{', ...' if len(distinct) > 5 else ''})"
