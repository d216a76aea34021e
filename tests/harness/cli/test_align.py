from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from harness.cli import main
from harness.smallworld import write_world


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder / "tokenizers"


def _align(tokenizers: Path, text: Path, *more: str) -> Any:
    arguments = ["--teacher", str(tokenizers / "bytelevel"), "--student", str(tokenizers / "sentencepiece")]
    return CliRunner().invoke(main, ["align", *arguments, "--text", str(text), *more])


def test_counts_and_pairs_of_two_kinds_of_tokenizer(tokenizers: Any, tmp_path: Path) -> None:
    texts = ["Question: Zoë has 3 apples.\nAnswer:", "def f(x):\n    return x + 1\n", "東京 😀"]
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = _align(tokenizers, file, "--json", "--pairs-out", str(tmp_path / "pairs.jsonl"))
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout)
    assert counts["documents"] == 3
    assert counts["aligned_share"] == counts["aligned"] / counts["student_tokens"] > 0.6
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert sum(len(line["student"]) for line in pairs) == counts["aligned"]
    teacher, student = (AutoTokenizer.from_pretrained(tokenizers / name) for name in ("bytelevel", "sentencepiece"))
    for text, line in zip(texts, pairs, strict=True):
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in (teacher, student)]
        assert len(line["teacher"]) == len(line["student"])
        for i, j in zip(line["teacher"], line["student"], strict=True):
            alike = [t.decode([k]).strip() for t, k in zip((teacher, student), (ids[0][i], ids[1][j]), strict=True)]
            assert alike[0] == alike[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ('{"text": "a"}\n{"text": 3}\n', ':2: no string under "text"'),
        ('{"text": "a"\n', ":1: not JSON"),
    ],
)
def test_bad_text_files_are_one_line_and_exit_code_2(
    tokenizers: Path, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text(content)
    result = _align(tokenizers, file, "--pairs-out", str(tmp_path / "pairs.jsonl"))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "pairs.jsonl").exists()


def test_pairs_go_to_a_device_as_it_is_and_nowhere_under_a_file(
    tokenizers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, null = tmp_path / "text.jsonl", tmp_path / "null"
    file.write_text('{"text": "a"}\n')
    null.symlink_to("/dev/null")
    assert _align(tokenizers, file, "--pairs-out", str(null)).exit_code == 0
    assert null.is_symlink()
    monkeypatch.setattr("harness.cli.align.align_tokenizers", lambda *_: pytest.fail("worked"))
    for path, message in (
        (file / "pairs", "text.jsonl is a file, not a folder"),
        (tmp_path, "is a folder; fix: name a file"),
    ):
        result = _align(tokenizers, file, "--pairs-out", str(path))
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1


def test_a_folder_without_a_usable_tokenizer_is_exit_code_2(tokenizers: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text('{"text": "a"}\n')
    words = tmp_path / "words"
    words.mkdir()
    Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(words / "tokenizer.json"))
    for folder, message in ((tmp_path / "nowhere", "no such tokenizer folder"), (words, "fix:")):
        result = CliRunner().invoke(
            main, ["align", "--teacher", str(folder), "--student", str(tokenizers / "bytelevel"), "--text", str(file)]
        )
        assert result.exit_code == 2
        assert message in result.stderr
