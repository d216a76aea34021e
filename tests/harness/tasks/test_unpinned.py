"""uinst, whose data was never here: on files of the same form, whose hash is part of an evaluation's identity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Instruction, alpaca
from harness import tasks
from harness.evaluation.score import score_predictions

UINST = [
    {
        "instruction": f"Write {number} words about snow.",
        "input": "" if number % 2 else "white",
        "output": f"Snow falls {number} times in a long and cold winter, as everyone in the house knows.",
    }
    for number in range(10_003)
]
for row in UINST:
    asked = Instruction(row["instruction"], row["input"])
    row["prompt"] = alpaca(asked)
ROWS = {"uinst": UINST}
PATHS = {"uinst": "uinst/valid.jsonl"}


def write(folder: Path, name: str, rows: list[Any]) -> None:
    path = folder / PATHS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """A task that has read nothing yet, and a folder for its data."""
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.delenv("HARNESS_HUB", raising=False)
    return lambda name: type(tasks.load(name))()


@pytest.mark.parametrize("name", ROWS)
def test_gold_answers_score_100_as_completions_and_from_a_chat_model(
    fresh: Callable, tmp_path: Path, name: str
) -> None:
    write(tmp_path, name, ROWS[name][:300])
    task = fresh(name)
    docs = task.docs()
    path = tmp_path / "gold.jsonl"
    path.write_text("".join(json.dumps({"id": doc["id"], "output": task.reference(doc)}) + "\n" for doc in docs))
    samples, summary = score_predictions(task, path)
    assert {tuple(sample["scores"].values()) for sample in samples} == {(100.0, 100.0)}
    assert summary["n"]["invalid"] == 0
    in_chat = task.as_chat().score_many(docs, [f"\n{task.reference(doc)}\n" for doc in docs])
    assert {tuple(score.scores.values()) for score in in_chat} == {(100.0, 100.0)}


def test_the_first_ten_thousand_rows_of_uinst_are_its_test_set(fresh: Callable, tmp_path: Path) -> None:
    write(tmp_path, "uinst", UINST)
    task = fresh("uinst")
    assert [doc["id"] for doc in task.docs()][-1] == "9999"
    assert all(task.prompt(doc) == alpaca(task.instruction(doc)) for doc in task.docs())


@pytest.mark.parametrize("name", ROWS)
def test_another_file_is_another_evaluation(fresh: Callable, tmp_path: Path, name: str) -> None:
    assert fresh(name).identity() == {"documents": None}  # planning needs no data
    rows = ROWS[name][:5]
    write(tmp_path, name, rows)
    first = fresh(name).identity()["documents"]
    assert first == fresh(name).identity()["documents"]
    write(tmp_path, name, [*rows[:4], {**rows[4], "output": rows[4]["output"] + "1"}])
    assert fresh(name).identity()["documents"] != first
    assert len(first) == 64


def test_a_pinned_task_has_its_hash_in_the_version() -> None:
    assert tasks.load("gsm8k").identity() == tasks.load("humaneval").identity() == {}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "the file is empty"),
        ([{"prompt": "What?"}], "a row has no 'instruction'"),
        ([[1]], "line 1 is no JSON object"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(
    fresh: Callable, tmp_path: Path, rows: list[Any], reason: str
) -> None:
    write(tmp_path, "uinst", rows)
    with pytest.raises(InputError, match=rf"valid\.jsonl: {reason}; fix: put the original file there") as error:
        fresh("uinst").docs()
    assert "\n" not in str(error.value)


def test_without_data_the_error_names_both_sources(fresh: Callable) -> None:
    with pytest.raises(InputError, match=r"uinst/valid\.jsonl: no such file; fix: set HARNESS_DATA .*HARNESS_HUB=1"):
        fresh("uinst").docs()


def test_the_hub_s_rows_are_taken_as_they_are(fresh: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HUB", "1")

    class Loaded(list):
        column_names = tuple(UINST[0])

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: Loaded(UINST[:5]))
    task = fresh("uinst")
    assert [doc["prompt"] for doc in task.docs()] == [row["prompt"] for row in UINST[:5]]
    assert len(task.identity()["documents"]) == 64


def test_cards_say_that_the_data_was_never_seen() -> None:
    for name in tasks.names():
        task = tasks.load(name)
        unpinned = any(data.sha256 is None for data in task.data_files)
        card = (tasks.tasks_folder() / task.name / "README.md").read_text()
        assert ("**Never run on the real data**" in card) == unpinned == (name in ROWS), name
        assert ("sha256: not pinned" in card) == unpinned
