"""The Python of the README and the examples run, on models small enough for a test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.smallworld.world import write_world
from helpers.paths import ROOT


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models/teacher, models/student (other tokenizers) and train.jsonl, as the README has them."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("readme")
    write_world(folder / "world")
    for name, kind in (("teacher", "bytelevel"), ("student", "sentencepiece")):
        tokenizer = AutoTokenizer.from_pretrained(folder / "world" / "tokenizers" / kind)
        sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **sizes)
        )
        model.save_pretrained(folder / "models" / name)
        tokenizer.save_pretrained(folder / "models" / name)
    lines = (folder / "world" / "train" / "student.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:20]), encoding="utf-8")
    return folder


def _python(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


PAIR = ["--teacher", "models/teacher", "--student", "models/student"]
ONE_VOCABULARY = ["--teacher", "models/teacher", "--student", "models/teacher"]
EXAMPLES = {
    "cross_tokenizer.py": ([*PAIR, "The quick brown fox"], "student tokens have a partner"),
    "distil_pair.py": ([*PAIR, "--data", "train.jsonl", "--output", "distilled", "--epochs", "1"], "losses {"),
    "on_policy.py": ([*ONE_VOCABULARY, "--data", "train.jsonl", "--output", "on-policy"], '"samples"'),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(pair: Path, name: str) -> None:
    arguments, printed = EXAMPLES[name]
    assert printed in _python(pair, str(ROOT / "examples" / name), *arguments)


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == EXAMPLES.keys()


def test_the_ten_lines_train_a_student(pair: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(block.splitlines()) <= 10
    assert "teacher_space" in _python(pair, "-c", block)
    assert (pair / "out" / "model" / "model.safetensors").is_file()


def test_the_page_about_python_runs_block_by_block(pair: Path) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.M | re.S
    )
    printed = _python(pair, "-c", "\n".join(blocks))
    assert "'teacher_space': " in printed.splitlines()[0]
    assert (pair / "distilled" / "model" / "provenance.json").is_file()


def test_it_is_short_and_its_lines_fit_a_screen() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []
