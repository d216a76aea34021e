"""`harness init-example`: what it writes is what `harness train` and `harness align` read."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from dskd.modeling.loading import load_model, load_tokenizer
from harness.cli import main


def test_two_models_with_tokenizers_of_two_kinds_and_text(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    result = CliRunner().invoke(main, ["init-example", str(folder)])
    assert result.exit_code == 0, result.output
    assert all(Path(line).exists() for line in result.stdout.splitlines() if line.startswith(str(folder)))
    vocabularies = []
    for name in ("teacher", "student"):
        tokenizer = load_tokenizer(folder / "models" / name)
        assert load_model(folder / "models" / name).config.vocab_size == len(tokenizer)
        vocabularies.append(set(tokenizer.get_vocab()))
    assert vocabularies[0] != vocabularies[1]
    line = json.loads((folder / "train" / "student.jsonl").read_text().splitlines()[0])
    text = json.loads((folder / "corpus.jsonl").read_text().splitlines()[0])
    assert text == {"text": line["prompt"] + line["output"]}


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    result = CliRunner().invoke(main, ["practice", str(tmp_path)])  # its old name
    assert result.exit_code == 2
    assert "already exists; fix: name a new folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
