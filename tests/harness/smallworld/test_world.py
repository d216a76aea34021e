"""The small world's sets: the same bytes from the same seed, disjoint, and as right or wrong as they claim."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.smallworld import prompt_of, write_world
from harness.smallworld import test_docs as docs_of
from harness.smallworld.world import FAMILIES, STUDENT_SIZES, STUDENT_WRONG_SHARE, TEST_SIZE

TASKS = ("small_instruct", "small_math", "small_code")
SETS = ("teacher", "student", "pretraining")

DIGEST = """
import hashlib, json, sys
from pathlib import Path
from harness.smallworld import test_docs, write_world
write_world(Path(sys.argv[1]))
digest = hashlib.sha256(json.dumps([test_docs(task) for task in sys.argv[2:]]).encode())
for path in sorted(Path(sys.argv[1]).rglob("*")):
    if path.is_file():
        digest.update(str(path.relative_to(sys.argv[1])).encode() + path.read_bytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def lines(world: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (world / "train" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def of_task(world: Path, name: str, task: str) -> list[dict]:
    return [line for line in lines(world, name) if line["task"] == task]


def passes(program: str) -> bool:
    """Whether code of the small world, which is ours and restricted to one expression, runs through."""
    try:
        exec(program, {})
    except Exception:
        return False
    return True


def test_the_same_seed_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    digests = [
        subprocess.run(
            [sys.executable, "-c", DIGEST, str(tmp_path / hash_seed), *TASKS],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert digests[0] == digests[1]


def test_another_seed_gives_another_world(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path, seed=1)
    for name in SETS:
        ours, others = ((folder / "train" / f"{name}.jsonl").read_bytes() for folder in (world, tmp_path))
        assert hashlib.sha256(ours).digest() != hashlib.sha256(others).digest()
    assert docs_of("small_instruct", seed=1) != docs_of("small_instruct")


@pytest.mark.parametrize("task", TASKS)
def test_prompts_of_test_and_student_sets_occur_nowhere_else(world: Path, task: str) -> None:
    test = {prompt_of(task, doc) for doc in docs_of(task)}
    prompts = {name: [line["prompt"] for line in of_task(world, name, task)] for name in SETS}
    assert len(test) == TEST_SIZE
    assert len(set(prompts["student"])) == len(prompts["student"]) == STUDENT_SIZES[task]
    for name in SETS:
        assert test.isdisjoint(prompts[name]), name
    assert set(prompts["student"]).isdisjoint(prompts["teacher"])
    assert set(prompts["student"]).isdisjoint(prompts["pretraining"])


@pytest.mark.parametrize("name", SETS)
def test_every_line_is_an_example_and_all_tasks_are_mixed(world: Path, name: str) -> None:
    rows = lines(world, name)
    assert all(row["prompt"] and row["output"] for row in rows)
    assert {row["task"] for row in rows[:50]} == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_wrong_labels_are_as_many_as_claimed(world: Path, task: str) -> None:
    rows = of_task(world, "student", task)
    assert sum(not row["right"] for row in rows) == round(STUDENT_WRONG_SHARE * len(rows))
    assert all((row["output"] == row["gold"]) == row["right"] for row in rows)


def test_instruct_answers_follow_one_truth_and_wrong_ones_miss_both_facts(world: Path) -> None:
    def facts(row: dict) -> list[tuple[str, str, str]]:
        asked = re.search(r"(pet|city|drink|instrument)\W.*?\b(pet|city|drink|instrument)\b", row["prompt"])
        assert asked, row["prompt"]
        person, values = row["output"].split(": ")
        assert person in row["prompt"]
        return [(person, name, value) for name, value in zip(asked.groups(), values.split(", "), strict=True)]

    truth = {
        (person, name): value
        for row in of_task(world, "teacher", "small_instruct")
        for person, name, value in facts(row)
    }
    assert len(truth) == 16 * 4
    for row in of_task(world, "student", "small_instruct"):
        for person, name, value in facts(row):
            assert (truth[person, name] == value) == row["right"]
    for doc in docs_of("small_instruct"):
        row = {"prompt": prompt_of("small_instruct", doc), "output": doc["output"]}
        assert all(truth[person, name] == value for person, name, value in facts(row))


def test_sums_are_right_in_right_answers_and_one_is_off_in_wrong_ones(world: Path) -> None:
    def steps(output: str) -> list[bool]:
        shown = re.findall(r"(\d+[-+*]\d+)=<<(\d+[-+*]\d+)=(-?\d+)>>(-?\d+)", output)
        assert shown
        assert output.rpartition("#### ")[2] == shown[-1][3], output
        assert all(text == noted and result == written for text, noted, result, written in shown), output
        return [eval(noted) == int(result) for _, noted, result, _ in shown]  # two numbers and a sign, by the pattern

    golds = [" " + doc["answer"] for doc in docs_of("small_math")]
    golds += [row["output"] for row in of_task(world, "teacher", "small_math")]
    assert all(all(steps(output)) for output in golds)
    for row in of_task(world, "student", "small_math"):
        assert steps(row["output"]).count(False) == (0 if row["right"] else 1), row


def test_gold_functions_pass_their_tests_and_wrong_labels_do_not(world: Path) -> None:
    for doc in docs_of("small_code"):
        call = f"\n{doc['test']}\ncheck({doc['entry_point']})\n"
        assert doc["prompt"].endswith('"""\n')
        assert passes(doc["prompt"] + doc["canonical_solution"] + call), doc
        assert not passes(doc["prompt"] + "    return None\n" + call), doc


def test_wrong_functions_fail_the_tests_of_the_right_ones() -> None:
    from random import Random

    family = FAMILIES["small_code"]
    guesses_right = 0
    for problem, _ in zip(family.problems(0, Random(5)), range(400), strict=False):
        call = f"\n{problem.doc['test']}\ncheck({problem.doc['entry_point']})\n"
        assert passes(problem.doc["prompt"] + family.gold(problem.doc) + call), problem
        assert not passes(problem.doc["prompt"] + problem.wrong + call), problem
        guesses_right += passes(problem.doc["prompt"] + problem.guess + call)
    # A guess is right by chance: one of the six to ten operations of its kind.
    assert 400 / 20 < guesses_right < 400 / 4


@pytest.mark.parametrize("task", ["small_instruct", "small_math"])
def test_pretraining_answers_ignore_their_questions(world: Path, task: str) -> None:
    right = {row["prompt"]: row["output"] for row in of_task(world, "teacher", task)}
    both = [row for row in of_task(world, "pretraining", task) if row["prompt"] in right]
    share = sum(row["output"] == right[row["prompt"]] for row in both) / len(both)
    assert len(both) > 500
    assert share < 0.08


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_those_that_the_task_evaluates_with(task: str) -> None:
    from harness import tasks

    evaluated = tasks.load(task)
    for doc, row in zip(evaluated.docs(), docs_of(task), strict=True):
        assert evaluated.prompt(doc) == prompt_of(task, row)


def test_the_formats_are_those_of_the_real_data_sets() -> None:
    assert set(docs_of("small_instruct")[0]) == {"instruction", "input", "output"}
    assert {bool(doc["input"]) for doc in docs_of("small_instruct")} == {True, False}
    assert set(docs_of("small_math")[0]) == {"question", "answer"}
    code = docs_of("small_code")
    assert set(code[0]) == {"task_id", "prompt", "entry_point", "canonical_solution", "test"}
    assert len({doc["task_id"] for doc in code}) == len(code)
    assert any(not character.isascii() for doc in docs_of("small_instruct") for character in doc["output"])
