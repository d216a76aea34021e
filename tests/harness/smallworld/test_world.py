"""The small world's sets: the same bytes from the same seed, disjoint, and as right or wrong as they claim."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from harness import tasks
from harness.smallworld import prompt_of, validation_docs, write_world
from harness.smallworld import test_docs as docs_of
from harness.smallworld.sets import (
    FAMILIES,
    FIRST_TEST_SIZE,
    STUDENT_SIZES,
    TEST_SIZE,
    VALIDATION_SIZE,
    sets_of,
    validation_of,
)
from harness.smallworld.world import CLEAN_SIZES, STUDENT_WRONG_SHARE
from harness.steps.leaks import check_no_test_items

TASKS = ("small_instruct", "small_math", "small_code")
OF_STUDENT = ("student", "clean", "prompts")
SETS = ("teacher", "pretraining", *OF_STUDENT)
# sha256 of what version 2 generated from seed 0: later versions add sets and items, and leave these as they are.
VERSION_2 = {
    "tokenizers/bytelevel/tokenizer.json": "a3dca137bca80d035abf0102d26482f27d7f68984923d63528bd7b2071a625e1",
    "tokenizers/bytelevel/tokenizer_config.json": "5bb966f5127ef6d75a28ab9aa48cad443482c4064b4bc493f5d21c37dd8169e7",
    "tokenizers/sentencepiece/tokenizer.json": "e58dbb689209d3b9f3fc9491d8e8af956857b488a4cdb96910f299c2fe79de59",
    "tokenizers/sentencepiece/tokenizer_config.json": "928e141ed58595e1dbd7b11578e0e2a21c4660d98e55de2a562205d0186b039c",
    "train/pretraining.jsonl": "f776cf346fdf1bf00ad709f2d6401adf4ab1f4e8b505b50b15c6b7218ce2e9dd",
    "train/student.jsonl": "ec4cc6af46b98658f6d40bfc7e021d746775b21591b82ba77785c03a202bf225",
    "train/teacher.jsonl": "a8b4ae19ffe4ac4f95d3534cad3bad40f70032cd0b2d3dfda27bfce00fda5e42",
}
FIRST_TEST_ITEMS = {
    "small_instruct": "bc0268a8c1861be3851ea36816858e13c18a3d22d56f11c8c8a9b6277030a199",
    "small_math": "3076da05691c6c3963caccf9099187c80c62b54c70fe0a36ce15d6df5c80a404",
    "small_code": "fc8767df0986ff8bed67d919ccda8a0a47a995e56c79d6465fc46b655410dceb",
}

DIGEST = """
import hashlib, json, sys
from pathlib import Path
from harness.smallworld import test_docs, validation_docs, write_world
write_world(Path(sys.argv[1]))
items = [docs(task) for docs in (test_docs, validation_docs) for task in sys.argv[2:]]
digest = hashlib.sha256(json.dumps(items).encode())
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


@pytest.mark.parametrize("path", VERSION_2)
def test_what_an_earlier_version_wrote_is_the_same_to_the_byte(world: Path, path: str) -> None:
    assert hashlib.sha256((world / path).read_bytes()).hexdigest() == VERSION_2[path]


@pytest.mark.parametrize("task", TASKS)
def test_the_test_set_begins_with_the_items_of_an_earlier_version(task: str) -> None:
    first = json.dumps(docs_of(task)[:FIRST_TEST_SIZE], ensure_ascii=False)
    assert hashlib.sha256(first.encode()).hexdigest() == FIRST_TEST_ITEMS[task]


@pytest.mark.parametrize("task", TASKS)
def test_test_and_validation_items_occur_nowhere_else_and_the_students_prompts_in_its_sets_alone(
    world: Path, task: str
) -> None:
    test, validation = ({prompt_of(task, doc) for doc in docs(task)} for docs in (docs_of, validation_docs))
    prompts = {name: [line["prompt"] for line in of_task(world, name, task)] for name in SETS}
    assert (len(test), len(validation)) == (TEST_SIZE, VALIDATION_SIZE) == (400, 200)
    assert test.isdisjoint(validation)
    assert len(set(prompts["student"])) == len(prompts["student"]) == STUDENT_SIZES[task]
    for name in SETS:
        assert test.isdisjoint(prompts[name]), name
        assert validation.isdisjoint(prompts[name]), name
    assert set(prompts["student"]).isdisjoint(prompts["teacher"])
    assert set(prompts["student"]).isdisjoint(prompts["pretraining"])


@pytest.mark.parametrize("task", TASKS)
def test_no_validation_item_asks_what_a_test_or_training_item_asks(world: Path, task: str) -> None:
    check_no_test_items(task)
    asked = tasks.load(f"{task}:validation")
    assert len(asked.docs()) == VALIDATION_SIZE

    def plain(row: dict) -> str:
        return " ".join(f"{row['instruction']} {row['input']}".split()).casefold()

    trained = {plain(row) for name in SETS for row in of_task(world, name, task)}
    for doc in validation_docs(task):
        assert plain(FAMILIES[task].instruction(doc)._asdict()) not in trained


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_further_test_items_and_validation_items_are_of_the_first_items_kinds_in_the_same_shares(
    task: str, seed: int
) -> None:
    test, validation = sets_of(task, seed).test, validation_of(task, seed)
    first, further = (Counter(problem.kind for problem in part) for part in (test[:100], test[100:]))
    assert len(first) > 1
    assert further == Counter({kind: 3 * count for kind, count in first.items()})
    assert Counter(problem.kind for problem in validation) == Counter({kind: 2 * n for kind, n in first.items()})


def test_later_questions_about_facts_use_the_words_of_earlier_ones() -> None:
    """So that a model that never saw their wordings can read them; and there is room for more items."""
    problems = list(FAMILIES["small_instruct"].problems(0, Random(0)))
    first, further = problems[:1536], problems[1536:]
    prompts = [FAMILIES["small_instruct"].prompt(problem.doc) for problem in problems]
    assert len(further) >= 1000
    assert len(set(prompts)) == len(prompts)
    known = {word for problem in first for word in problem.doc["instruction"].split()}
    assert {word for problem in further for word in problem.doc["instruction"].split()} <= known


@pytest.mark.parametrize("name", SETS)
def test_every_line_is_an_example_and_all_tasks_are_mixed(world: Path, name: str) -> None:
    rows = lines(world, name)
    assert all(row["prompt"] and (row["output"] if name != "prompts" else "output" not in row) for row in rows)
    assert {row["task"] for row in rows[:50]} == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_clean_has_right_answers_to_the_first_of_the_students_prompts_and_prompts_has_none_to_all(
    world: Path, task: str
) -> None:
    right = {row["prompt"]: row["gold"] for row in of_task(world, "student", task)}
    clean, prompts = (of_task(world, name, task) for name in ("clean", "prompts"))
    assert len(clean) == CLEAN_SIZES[task] < len(right)
    assert all(row["output"] == right[row["prompt"]] for row in clean)
    assert sorted(row["prompt"] for row in prompts) == sorted(right)
    assert not {"output", "gold", "right"} & {key for row in prompts for key in row}


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
