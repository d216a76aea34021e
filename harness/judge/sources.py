"""Where answers come from, and what they answer: files, evaluations of a run, a task's references; a task's or a file's prompts.

Both sides have an answer to every prompt that is judged. Nothing is left out because one side lacks it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from harness.judge.pairs import Pair
from harness.tasks.task import Task

_FIX_IDS = "fix: give two files of the same prompts"


@dataclass(frozen=True)
class Answer:
    """One answer; `prompt` is what its model was asked, where the file says it."""

    text: str
    prompt: str | None
    where: str


@dataclass(frozen=True)
class Side:
    """One side of the comparison: by prompt, its answers in the order of their samples. `sha256` is of all that it was read from."""

    name: str
    sha256: str
    answers: Mapping[str, Sequence[Answer]]


@dataclass(frozen=True)
class Asked:
    """What was asked, by id; `identity` says what this was read from.

    `parts` has for each prompt of a task the ways in which a template may have made a prompt of it: texts that are all in it.
    Without them an answer's own prompt is the text itself.
    """

    texts: Mapping[str, str]
    identity: dict[str, Any]
    parts: Mapping[str, Sequence[Sequence[str]]] | None = None


def read_side(path: Path, name: str) -> Side:
    """Read the answers of a file of `harness generate`, of `samples.jsonl`, or any lines {"id", "output"}."""
    answers: dict[str, list[Answer]] = {}
    for number, row in read_objects(path, half_pairs=True):
        where = f"{path}:{number}"
        identifier, output, prompt = row.get("id"), row.get("output"), row.get("prompt")
        if not isinstance(identifier, str) or not isinstance(output, str):
            raise InputError(f'{where}: "id" or "output" is missing or no text; fix: {{"id": "0", "output": "..."}}')
        if prompt is not None and not isinstance(prompt, str):
            raise InputError(f'{where}: "prompt" is no text; fix: write it in quotes, or leave it out')
        answers.setdefault(identifier, []).append(Answer(output, prompt, where))
    return Side(name, hashlib.sha256(path.read_bytes()).hexdigest(), answers)


def references(task: Task) -> Side:
    """Return the reference answers of a task, one to each of its documents."""
    answers = {doc["id"]: [Answer(task.reference(doc), None, f"task {task.name}")] for doc in task.docs()}
    said = json.dumps({identifier: answer[0].text for identifier, answer in answers.items()}, sort_keys=True)
    return Side(f"references of {task.name}", hashlib.sha256(said.encode()).hexdigest(), answers)


def prompts_of_task(task: Task) -> Asked:
    """Return what a task asks: the item's own text, without examples and templates."""
    docs = task.docs()
    identity = {"task": task.name, "version": task.version, **task.identity()}
    texts = {doc["id"]: task.question(doc) for doc in docs}
    return Asked(texts, identity, {doc["id"]: _as_asked(task, doc) for doc in docs})


def prompts_of_texts(texts: Mapping[str, str]) -> Asked:
    """Return prompts of one's own, as they are."""
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
    return Asked(dict(texts), {"prompts_sha256": digest})


def prompts_of_answers(a: Side, b: Side) -> Asked:
    """Return the prompts that the lines themselves have. InputError where one has none."""
    texts: dict[str, str] = {}
    for side in (a, b):
        for identifier, answers in side.answers.items():
            if (prompt := answers[0].prompt) is None:
                raise InputError(
                    f'{answers[0].where}: has no "prompt", so the judge cannot know what was asked; fix: --task NAME, or --prompts FILE'
                )
            texts.setdefault(identifier, prompt)
    return Asked(texts, {"prompts": "of the answers"})


def make_pairs(a: Side, b: Side, asked: Asked, *, limit: int | None = None, samples: int | None = None) -> list[Pair]:
    """Pair the answers of two sides, sample by sample, to the first `limit` prompts, or all.

    Args:
        samples: The first so many samples of each prompt; all without it.

    InputError for a prompt that a side has not answered, an answer to none of the prompts, other numbers of samples, and an answer
    whose own prompt is another one.
    """
    for side in (a, b):
        _known(side, asked.texts)
    wanted = list(asked.texts)[:limit]
    for side, other in ((a, b), (b, a)):
        _complete(side, other, wanted, len(asked.texts))
    pairs = []
    for identifier in wanted:
        left, right = a.answers[identifier], b.answers[identifier]
        for answer in (*left, *right):
            _same_prompt(answer, identifier, asked)
        if len(left) != len(right) and (samples is None or min(len(left), len(right)) < samples):
            raise InputError(
                f"{left[0].where}: {len(left)} answers to {identifier!r}, but {len(right)} in {b.name}; "
                "fix: --samples with a number that both have"
            )
        for index, (one, two) in enumerate(list(zip(left, right, strict=False))[:samples]):
            pairs.append(Pair(identifier, index, asked.texts[identifier].strip(), one.text.strip(), two.text.strip()))
    return pairs


def _known(side: Side, texts: Mapping[str, str]) -> None:
    if unknown := [identifier for identifier in side.answers if identifier not in texts]:
        where = side.answers[unknown[0]][0].where
        raise InputError(f"{where}: the id {unknown[0]!r} is none of the prompts ({len(unknown)} are not); {_FIX_IDS}")


def _complete(side: Side, other: Side, wanted: Sequence[str], total: int) -> None:
    missing = [identifier for identifier in wanted if identifier not in side.answers]
    if not missing:
        return
    both = next((n for n, name in enumerate(wanted) if name not in side.answers or name not in other.answers), 0)
    fewer = f", or --limit {both} for the first {both}, which both have" if both else ""
    raise InputError(
        f"{side.name}: has no answer to {missing[0]!r} ({len(missing)} of {total} prompts are missing); "
        f"fix: generate the rest{fewer}"
    )


def _as_asked(task: Task, doc: Mapping[str, Any]) -> list[list[str]]:
    """The parts of a document that are in a prompt: of its instruction in a template, or of the task's own prompt."""
    ways = [[task.prompt(dict(doc))]]
    if task.supports_chat:
        ways.append(list(task.instruction(dict(doc))))
    return ways


def _same_prompt(answer: Answer, identifier: str, asked: Asked) -> None:
    if answer.prompt is None:
        return
    if asked.parts is None:
        same = answer.prompt == asked.texts[identifier]
    else:
        prompt = _plain(answer.prompt)
        same = any(all(_plain(part) in prompt for part in way) for way in asked.parts[identifier])
    if not same:
        raise InputError(
            f"{answer.where}: its prompt is not the one that is judged ({identifier!r}); "
            "fix: compare answers to the same prompts, of the same version of the task"
        )


def _plain(text: str) -> str:
    """A text without what templates change about it: white space."""
    return " ".join(text.split())
