"""Writes the training sets and tokenizers of the small world, and provides its test sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

from dskd.tokenization.prompt_templates import Instruction
from harness.smallworld.code_functions import CodeFunctions
from harness.smallworld.facts import Facts
from harness.smallworld.families import Doc, Family, Problem
from harness.smallworld.tokenizers import write_byte_level, write_sentencepiece
from harness.smallworld.word_problems import WordProblems

SMALL_WORLD_VERSION = 2

# Examples of each task in each set.
TEST_SIZE = 100
VALIDATION_SIZE = 100
STUDENT_SIZES = {"small_instruct": 300, "small_math": 400, "small_code": 300}
TEACHER_SIZES = {"small_instruct": 1130, "small_math": 1300, "small_code": 500}  # pretraining has the same prompts
# The share of wrong answers in the student's training set.
STUDENT_WRONG_SHARE = 0.4
FAMILIES: dict[str, Family] = {family.task: family for family in (Facts(), WordProblems(), CodeFunctions())}


def write_world(directory: Path, seed: int = 0) -> None:
    """Write the tokenizers and training sets of a world. Equal seeds give equal bytes.

    `tokenizers/{bytelevel,sentencepiece}/` are folders for AutoTokenizer. `train/{teacher,student,pretraining}.jsonl` have lines
    {"prompt", "instruction", "input", "output", "task"} of all tasks, shuffled; models with a template use the instruction. The
    student's lines also say whether the answer is right ("right") and what is right ("gold"); the trainer ignores both.
    """
    sets: dict[str, list[dict[str, object]]] = {"student": [], "teacher": [], "pretraining": []}
    for task, family in FAMILIES.items():
        problems = _problems(task, seed)[TEST_SIZE:]
        few, many = problems[: STUDENT_SIZES[task]], problems[STUDENT_SIZES[task] :]
        sets["student"] += _partly_wrong_lines(task, family, few, seed)
        sets["teacher"] += [_line(task, family, problem, family.gold(problem.doc)) for problem in many]
        sets["pretraining"] += [_line(task, family, problem, problem.guess) for problem in many]
    for name, lines in sets.items():
        Random(f"{seed}/order/{name}").shuffle(lines)
        path = directory / "train" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    text = [f"{line['prompt']}{line['output']}" for line in sets["pretraining"]]
    write_byte_level(directory / "tokenizers" / "bytelevel", text)
    write_sentencepiece(directory / "tokenizers" / "sentencepiece", text)


def test_docs(task: str, seed: int = 0) -> list[Doc]:  # noqa: PT028 - no test, only named like one
    """The test set of a task, in the format of the data set. KeyError for an unknown task."""
    docs = [problem.doc for problem in _problems(task, seed)[:TEST_SIZE]]
    return [({"task_id": f"SmallCode/{n}"} if task == "small_code" else {}) | doc for n, doc in enumerate(docs)]


@cache
def validation_docs(task: str, seed: int = 0) -> list[Doc]:
    """The validation items of a task, which are in no other set; settings may be chosen by them. KeyError for an unknown task."""
    family, used = FAMILIES[task], {FAMILIES[task].prompt(problem.doc) for problem in _problems(task, seed)}
    distinct: dict[str, Doc] = {}
    for problem in family.problems(seed, Random(f"{seed}/validation/{task}")):
        if len(distinct) == VALIDATION_SIZE:
            break
        prompt = family.prompt(problem.doc)
        if prompt not in used:
            distinct.setdefault(prompt, problem.doc)
    return [
        ({"task_id": f"SmallCode/validation/{n}"} if task == "small_code" else {}) | doc
        for n, doc in enumerate(distinct.values())
    ]


test_docs.__test__ = False  # type: ignore[attr-defined]  # its name looks like a test's to pytest


@cache
def training_docs(task: str, seed: int = 0) -> dict[str, Doc]:
    """The problems of the training sets of a task, with the right answers, by their prompts. KeyError for an unknown task."""
    problems = _problems(task, seed)[TEST_SIZE:]
    return {prompt_of(task, problem.doc): {"id": "", **problem.doc} for problem in problems}


def prompt_of(task: str, doc: Doc) -> str:
    """The prompt of a row of the test set, as in training. KeyError for an unknown task."""
    return FAMILIES[task].prompt(doc)


def instruction_of(task: str, doc: Doc) -> Instruction:
    """The instruction of a row of the test set for models with a template, as in training."""
    return FAMILIES[task].instruction(doc)


@cache
def _problems(task: str, seed: int) -> tuple[Problem, ...]:
    """Distinct problems for all sets: first those of the test set, then the student's, then the teacher's."""
    family = FAMILIES[task]
    distinct: dict[str, Problem] = {}
    for problem in family.problems(seed, Random(f"{seed}/problems/{task}")):
        distinct.setdefault(family.prompt(problem.doc), problem)
        if len(distinct) == TEST_SIZE + STUDENT_SIZES[task] + TEACHER_SIZES[task]:
            return tuple(distinct.values())
    raise AssertionError(f"{task}: only {len(distinct)} distinct problems")


def _line(task: str, family: Family, problem: Problem, output: str) -> dict[str, object]:
    instruction = family.instruction(problem.doc)._asdict()
    return {"prompt": family.prompt(problem.doc), **instruction, "output": output, "task": task}


def _partly_wrong_lines(task: str, family: Family, problems: Sequence[Problem], seed: int) -> list[dict[str, object]]:
    """Lines with wrong answers in a random STUDENT_WRONG_SHARE of them."""
    rng = Random(f"{seed}/wrong/{task}")
    wrong = set(rng.sample(range(len(problems)), round(STUDENT_WRONG_SHARE * len(problems))))
    lines = []
    for number, problem in enumerate(problems):
        right, gold = number not in wrong, family.gold(problem.doc)
        lines.append(_line(task, family, problem, gold if right else problem.wrong) | {"right": right, "gold": gold})
    return lines
