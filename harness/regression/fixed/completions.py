"""Completions that are stored to be scored: outputs of the fixed models, and made-up ones that an extractor can misread."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dskd.errors import InputError
from dskd.io import read_objects, write_atomic
from harness import tasks
from harness.tasks.task import Doc, Task


class StoredCompletion(BaseModel):
    """One completion of a document, which is stored whole: the world may change."""

    model_config = ConfigDict(extra="forbid")
    id: str
    task: str
    doc: dict[str, Any]
    output: str


# {right} is the answer of a word problem and {wrong} the next number; a reader that takes another number than the stated one is wrong.
_NUMBERS = {
    "reference": "{reference}",
    "stated-first": " The answer is {right}. I counted 3 of them, then {wrong}.",
    "stated-last": " First there are 2, then 30, and so the answer is {right}.",
    "marked-among-others": " 1 + 1 = 2\n#### {right}\nThis took 4 lines.",
    "corrected": " The answer is {wrong}. No, that is wrong. The answer is {right}.",
    "decimal": " #### {right}.0",
    "in-a-box": " So we have \\boxed{{{right}}} of 100.",
    "negative": " #### -{right}",
    "thousands": " #### 1,00{right}",
    "wrong": " There are {right} and 1 more.\n#### {wrong}",
    "none": " I do not know.",
    "empty": "",
}
_TEXTS = {
    "reference": "{reference}",
    "twice": "{reference} {reference}",
    "first-words": "{half}",
    "upper-case": "{upper}",
    "longer": "Well, {reference} as far as anybody knows",
    "other": "something else",
    "empty": "",
}
_PROGRAMS = {
    "reference": "{reference}",
    "more-after-it": "{reference}\n\ndef other():\n    return 1\n",
    "nothing": "    pass\n",
    "no-program": "    return (\n",
    "empty": "",
}
_MADE_UP = {"small_math": _NUMBERS, "small_instruct": _TEXTS, "small_code": _PROGRAMS}
_DOCUMENTS = 3  # of each task, that each made-up completion is written for


def made_up() -> Iterator[StoredCompletion]:
    """Completions of the first items of each task of the small world, written by hand."""
    for name, texts in _MADE_UP.items():
        task = tasks.load(name)
        for doc in task.docs(_DOCUMENTS):
            words = _words(task, doc)
            for kind, text in texts.items():
                yield StoredCompletion(id=f"{doc['id']}/{kind}", task=name, doc=doc, output=text.format(**words))


def _words(task: Task, doc: Doc) -> dict[str, str]:
    reference = task.reference(doc)
    words = {"reference": reference, "half": reference[: len(reference) // 2], "upper": reference.upper()}
    _, marked, right = reference.rpartition("#### ")
    return words | ({"right": right, "wrong": str(int(right) + 1)} if marked else {})


def write_completions(path: Path, completions: Sequence[StoredCompletion]) -> None:
    """Write the file, a line a completion."""
    lines = [json.dumps(each.model_dump(), ensure_ascii=False) + "\n" for each in completions]
    write_atomic(path, "".join(lines))


def read_completions(path: Path) -> list[StoredCompletion]:
    """Read the file. InputError names the line that is broken."""
    found = []
    for number, row in read_objects(path):
        try:
            found.append(StoredCompletion.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            where = f"{path}:{number}: {'.'.join(map(str, first['loc']))}"
            raise InputError(f"{where}: {first['msg']}; fix: take the line out, or correct it") from None
    return found


def measure_scores(
    path: Path, *, allow_code_execution: bool
) -> Iterator[tuple[str, dict[str, dict[str, float | None]]]]:
    """Score the stored completions.

    Args:
        path: Their file.
        allow_code_execution: Whether the programs among them may be run.

    Yields:
        The task, and the scores by completion.

    Raises:
        InputError: There are programs, and running them was not allowed.
    """
    by_task = sorted(read_completions(path), key=lambda each: each.task)
    groups = [(name, list(group)) for name, group in groupby(by_task, key=lambda each: each.task)]
    for name, _ in groups:
        tasks.load(name).check_permission(allow_code_execution)
    for name, group in groups:
        scores = tasks.load(name).score_many(
            [each.doc for each in group],
            [each.output for each in group],
            allow_code_execution=allow_code_execution,
        )
        yield name, {each.id: score.scores for each, score in zip(group, scores, strict=True)}
