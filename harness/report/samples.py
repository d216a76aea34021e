"""Prompts and completions, for the browser of samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from harness.metrics.sample import HARNESS_ERROR, INVALID
from harness.report.results import Result
from harness.runs.store import SAMPLES

MOST_COMPLETIONS = 20_000
MOST_CHARACTERS = 20_000  # of one text; samples.jsonl has all of it


def browsable(results: Sequence[Result], most_completions: int = MOST_COMPLETIONS) -> tuple[dict[str, Any], list[str]]:
    """{"cells", "items", "completions_total"}: the evaluations, and every prompt with its completions; and messages on unreadable files.

    An item is one prompt of one version of a task. If models have different templates, `prompts` has several, and each completion names
    its own. If there are more than `most_completions` completions, every task keeps the same share of its prompts, evenly spread, each with
    all of its completions.
    """
    evaluations = [result for result in results if result.is_evaluation]
    total = sum(result.record.n.total for result in evaluations if result.record.n is not None)
    share = min(1.0, most_completions / total) if total else 1.0
    collection = _Collection(share)
    problems = []
    for result in evaluations:
        try:
            collection.add(result)
        except InputError as error:
            path = str(result.folder / SAMPLES)
            problems.append(str(error).replace(path, f"{result.name}/{SAMPLES}"))
    return {"cells": collection.cells, "items": collection.items(), "completions_total": total}, problems


class _Collection:
    def __init__(self, share: float) -> None:
        self.share = share
        self.cells: list[dict[str, Any]] = []
        self._items: dict[tuple[str, str], dict[str, dict[str, Any] | None]] = {}

    def add(self, result: Result) -> None:
        """Add the completions of one evaluation."""
        cell = result.record.cell
        number = len(self.cells)
        names = ("teacher", "student", "method", "seed")
        what = {"task": cell.column, "version": cell.task_version, "metric": result.record.headline}
        self.cells.append({name: getattr(cell, name) for name in names} | what | {"folder": result.name})
        items_of_task = self._items.setdefault((str(cell.column), str(cell.task_version)), {})
        for _, sample in read_objects(result.folder / SAMPLES, half_pairs=True):
            name = str(sample.get("id"))
            if name not in items_of_task:
                rank = len(items_of_task)
                is_shown = int((rank + 1) * self.share) > int(rank * self.share)
                items_of_task[name] = _item(cell.column, cell.task_version, name, sample) if is_shown else None
            item = items_of_task[name]
            if item is not None:
                item["completions"].append(_completion(number, str(result.record.headline), item, sample))

    def items(self) -> list[dict[str, Any]]:
        """The items by task, in the order of the samples."""
        return [item for key in sorted(self._items) for item in self._items[key].values() if item is not None]


def _item(task: str | None, version: str | None, name: str, sample: dict[str, Any]) -> dict[str, Any]:
    gold = sample.get("gold")
    references = [_text(each) for each in (gold if isinstance(gold, list) else [] if gold is None else [gold])]
    empty: dict[str, Any] = {"prompts": [], "references": references, "completions": []}
    return {"task": task, "version": version, "id": name, **empty}


def _completion(cell: int, metric: str, item: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    prompt = _text(sample.get("prompt", ""))
    if prompt not in item["prompts"]:
        item["prompts"].append(prompt)
    scores = sample.get("scores") or {}
    output = _text(sample.get("output", ""))
    extracted = {name: _text(value) for name, value in (sample.get("extracted") or {}).items() if value is not None}
    completion = {
        "cell": cell,
        "index": sample.get("index") or None,
        "prompt": item["prompts"].index(prompt) or None,
        "output": output,
        "score": scores.get(metric),
        "scores": {name: value for name, value in scores.items() if name != metric},
        "extracted": {name: value for name, value in extracted.items() if value["text"] != output["text"]},
        "outcome": sample.get("outcome"),
        "detail": _text(sample["detail"])["text"] if sample.get("detail") else None,
        "tokens": sample.get("generated_tokens"),
        "reasoning": _text(sample["reasoning"]) if sample.get("reasoning") else None,
        "reasoning_tokens": sample.get("reasoning_tokens"),
        "flaws": _flaws(sample),
    }
    return {name: value for name, value in completion.items() if value not in (None, {}, [])}


def _flaws(sample: dict[str, Any]) -> list[str]:
    flaws = {
        "invalid": sample.get("outcome") == INVALID,
        "harness error": sample.get("outcome") == HARNESS_ERROR,
        "reasoning never ended": sample.get("reasoning_ended") is False,
        "reasoning closed at its limit": sample.get("reasoning_closed") is True,
        "cut off at the token limit": sample.get("finish_reason") == "length",
        "prompt truncated": bool(sample.get("prompt_truncated")),
    }
    return [name for name, applies in flaws.items() if applies]


def _text(value: Any) -> dict[str, Any]:
    """{"text"}, and `length` if it was cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"text": text} if len(text) <= MOST_CHARACTERS else {"text": text[:MOST_CHARACTERS], "length": len(text)}
