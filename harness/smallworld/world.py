"""Writes the training sets and tokenizers of the small world, and provides its test and validation sets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from random import Random

from dskd.tokenization.prompt_templates import Instruction
from harness.smallworld.families import Doc, Family, Problem
from harness.smallworld.sets import FAMILIES, sets_of, validation_of
from harness.smallworld.tokenizers import write_byte_level, write_bytes, write_sentencepiece

SMALL_WORLD_VERSION = 3

# The share of wrong answers in the student's training set.
STUDENT_WRONG_SHARE = 0.4
# Of the student's problems the first so many are in `clean`: docs/small-world.md says how the size was chosen.
CLEAN_SIZES = {"small_instruct": 75, "small_math": 100, "small_code": 75}

Line = dict[str, object]


def write_world(directory: Path, seed: int = 0) -> None:
    """Write the tokenizers and training sets of a world. Equal seeds give equal bytes.

    `tokenizers/{bytelevel,sentencepiece,bytes}/` are folders for AutoTokenizer. `train/NAME.jsonl` have lines {"prompt",
    "instruction", "input", "output", "task"} of all tasks, shuffled; models with a template use the instruction. The lines of
    `student` also say whether the answer is right ("right") and what is right ("gold"); the trainer ignores both. Those of `prompts`
    have no "output".
    """
    sets: dict[str, list[Line]] = {name: [] for name in ("student", "teacher", "pretraining", "clean", "prompts")}
    for task, family in FAMILIES.items():
        of_task = sets_of(task, seed)
        few, many = of_task.student, of_task.teacher
        sets["student"] += _partly_wrong_lines(task, family, few, seed)
        sets["teacher"] += [_line(task, family, problem, family.gold(problem.doc)) for problem in many]
        sets["pretraining"] += [_line(task, family, problem, problem.guess) for problem in many]
        sets["clean"] += [_line(task, family, each, family.gold(each.doc)) for each in few[: CLEAN_SIZES[task]]]
        sets["prompts"] += [_line(task, family, problem, None) for problem in few]
    for name, lines in sets.items():
        Random(f"{seed}/order/{name}").shuffle(lines)
        path = directory / "train" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    text = [f"{line['prompt']}{line['output']}" for line in sets["pretraining"]]
    write_byte_level(directory / "tokenizers" / "bytelevel", text)
    write_sentencepiece(directory / "tokenizers" / "sentencepiece", text)
    write_bytes(directory / "tokenizers" / "bytes")


def test_docs(task: str, seed: int = 0) -> list[Doc]:  # noqa: PT028 - no test, only named like one
    """The test set of a task, in the format of the data set. KeyError for an unknown task."""
    return _named(task, sets_of(task, seed).test, "SmallCode")


test_docs.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test's to pytest


@cache
def validation_docs(task: str, seed: int = 0) -> list[Doc]:
    """The validation items of a task, which are in no other set; settings may be chosen by them. KeyError for an unknown task."""
    return _named(task, validation_of(task, seed), "SmallCode/validation")


@cache
def training_docs(task: str, seed: int = 0) -> dict[str, Doc]:
    """The problems of the training sets of a task, with the right answers, by their prompts. KeyError for an unknown task."""
    sets = sets_of(task, seed)
    return {
        prompt_of(task, problem.doc): {"id": "", **problem.doc}
        for part in (sets.student, sets.teacher)
        for problem in part
    }


def prompt_of(task: str, doc: Doc) -> str:
    """The prompt of a row of the test set, as in training. KeyError for an unknown task."""
    return FAMILIES[task].prompt(doc)


def instruction_of(task: str, doc: Doc) -> Instruction:
    """The instruction of a row of the test set for models with a template, as in training."""
    return FAMILIES[task].instruction(doc)


def _named(task: str, problems: Iterable[Problem], name: str) -> list[Doc]:
    """Rows of a data set; HumanEval's have ids."""
    docs = [problem.doc for problem in problems]
    return [({"task_id": f"{name}/{number}"} if task == "small_code" else {}) | doc for number, doc in enumerate(docs)]


def _line(task: str, family: Family, problem: Problem, output: str | None) -> Line:
    instruction = family.instruction(problem.doc)._asdict()
    answered = {} if output is None else {"output": output}
    return {"prompt": family.prompt(problem.doc), **instruction, **answered, "task": task}


def _partly_wrong_lines(task: str, family: Family, problems: Sequence[Problem], seed: int) -> list[Line]:
    """Lines with wrong answers in a random STUDENT_WRONG_SHARE of them."""
    rng = Random(f"{seed}/wrong/{task}")
    wrong = set(rng.sample(range(len(problems)), round(STUDENT_WRONG_SHARE * len(problems))))
    lines = []
    for number, problem in enumerate(problems):
        right, gold = number not in wrong, family.gold(problem.doc)
        lines.append(_line(task, family, problem, gold if right else problem.wrong) | {"right": right, "gold": gold})
    return lines
