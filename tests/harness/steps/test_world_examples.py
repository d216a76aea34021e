"""Training sets of the small world that differ from a file of examples: prompts without responses, and lengths in bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dskd.data import load_examples
from dskd.errors import InputError
from harness.smallworld import write_world
from harness.steps.data import PreparedData, WorldExamples, read_examples
from harness.steps.kept_responses import read_rows
from harness.steps.tokenizers import WorldTokenizer
from harness.steps.world import World


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    write_world(World().path(root))
    return root


@pytest.fixture
def prompts() -> WorldExamples:
    return WorldExamples(name="prompts", small_world=World(), set="prompts")


def rows(root: Path, name: str) -> list[dict]:
    path = World().path(root) / "train" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_teacher_is_asked_all_prompts_in_their_order(root: Path, prompts: WorldExamples, tmp_path: Path) -> None:
    path, left_out = read_examples(prompts, root, tmp_path, "text", None)
    assert left_out.total == 0
    assert [example.prompt for example in load_examples(path)] == [row["prompt"] for row in rows(root, "prompts")]
    limited, _ = read_examples(prompts, root, tmp_path, "text", 7)
    assert len(load_examples(limited)) == 7


def test_responses_can_be_scored_by_the_tasks_of_the_rows(root: Path, prompts: WorldExamples) -> None:
    found = list(read_rows(prompts, root, "text", 20))
    assert [row["prompt"] for row, _ in found] == [row["prompt"] for row in rows(root, "prompts")[:20]]
    assert {row["task"] for row, _ in found} <= {"small_instruct", "small_math", "small_code"}


def test_the_file_itself_is_no_training_set(root: Path) -> None:
    with pytest.raises(InputError, match="output"):
        load_examples(World().path(root) / "train" / "prompts.jsonl")


def test_a_length_in_bytes_is_estimated_by_the_tokenizer_of_bytes(prompts: WorldExamples) -> None:
    def tokens(name: str) -> float:
        tokenizer = WorldTokenizer(small_world=World(), name=name)
        return PreparedData(examples=prompts, student_tokenizer=tokenizer, max_length=320, title="").lengths.tokens

    assert tokens("bytes") == 116 + 32 + 1
    assert tokens("bytelevel") == tokens("sentencepiece") == pytest.approx((116 + 32) / 3.2 + 1)
