"""The values of single items, from files as evaluations write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dskd.errors import InputError
from harness.results.item_scores import ItemScores, read_items, stack
from harness.runs.identity import Identity
from harness.runs.records import Environment, Record, RecordCell


def record(seed: int | None, method: str = "kd") -> Record:
    return Record(
        cell=RecordCell(teacher="t", student="s", method=method, seed=seed, task="math", task_version="1"),
        identity=Identity.of({}),
        status="failed",
        error="not looked at here",
        environment=Environment(versions={}, python="3.11", platform="Linux", device="cpu", threads=1),
    )


def sample(identifier: str, score: float | None, prompt: str = "How many?", index: int = 0) -> dict[str, Any]:
    return {"id": identifier, "index": index, "prompt": prompt, "scores": {"numeric": score, "strict": 0.0}}


def folder(path: Path, samples: list[dict[str, Any]]) -> Path:
    path.mkdir()
    (path / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
    return path


def stacked(results: list[tuple[Record, Path]], metric: str) -> ItemScores:
    return stack([(record, read_items(path)) for record, path in results], metric)


def test_seeds_stand_above_each_other_in_order_with_one_value_an_item(tmp_path: Path) -> None:
    second = folder(tmp_path / "2", [sample("b", 0.0), sample("a", 100.0)])
    first = folder(
        tmp_path / "1", [sample("a", 0.0), sample("a", 100.0, index=1), sample("b", None), sample("b", None, index=1)]
    )
    found = stacked([(record(2), second), (record(1), first)], "numeric")
    assert (found.ids, found.seeds, found.fixed, found.kind) == (("a", "b"), (1, 2), False, "continuous")
    np.testing.assert_array_equal(found.values, [[50.0, np.nan], [100.0, 0.0]])
    assert stacked([(record(1), first)], "strict").kind == "binary"


def test_a_teacher_has_no_seed_to_vary(tmp_path: Path) -> None:
    found = stacked([(record(None, "teacher"), folder(tmp_path / "t", [sample("a", 100.0)]))], "numeric")
    assert (found.fixed, found.seeds) == (True, (0,))


def test_prompts_are_told_apart_and_absent_ones_are_none(tmp_path: Path) -> None:
    one = read_items(folder(tmp_path / "1", [sample("a", 0.0), sample("b", 0.0, "How much?")]))
    assert one.prompts[0] != one.prompts[1]
    assert one.prompts[0] == read_items(folder(tmp_path / "2", [sample("a", 100.0)])).prompts[0]
    bare = {"id": "a", "scores": {"numeric": 1.0}}
    assert stacked([(record(1), folder(tmp_path / "3", [bare]))], "numeric").prompts == ()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ([sample("a", 0.0)], "not the items of the other seeds (1 differ, as 'b')"),
        ([sample("a", 0.0), sample("b", 0.0, "Else?")], "not the prompts of the other seeds"),
        ([{"id": "a", "scores": {"other": 0.0}}], "no 'numeric'; fix: one of other"),
        ([sample("a", 0.0), sample("a", 0.0, "Else?", 1)], "samples of 'a' have different prompts"),
        ([{"id": "a", "scores": {"numeric": "x"}}], "'a' has no number as 'numeric'"),
        ([{"id": "a"}], 'samples.jsonl:1: no "id" or no "scores"'),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path: Path, other: list[dict[str, Any]], words: str) -> None:
    first = folder(tmp_path / "1", [sample("a", 0.0), sample("b", 100.0)])
    with pytest.raises(InputError) as error:
        stacked([(record(1), first), (record(2), folder(tmp_path / "2", other))], "numeric")
    assert words in str(error.value)


def test_a_seed_twice_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    first = folder(tmp_path / "1", [sample("a", 0.0)])
    with pytest.raises(InputError, match="a seed occurs twice"):
        stacked([(record(1), first), (record(1), first)], "numeric")
    with pytest.raises(InputError, match=r"samples\.jsonl: is missing; fix: "):
        stacked([(record(1), tmp_path)], "numeric")
