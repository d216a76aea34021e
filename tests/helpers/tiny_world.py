"""A teacher and two students small enough for a test, trained a little, with data prepared for each pair."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dskd import methods
from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.training.run import TrainingOptions, train
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece


def make(folder: Path, *, dropout: float = 0.0, steps: int = 25, teacher_heads: int = 2) -> None:
    """`teacher`, `same` (its vocabulary, GPT-2) and `cross` (another, Llama); `same-data`, `cross-data`, `teacher-data`.

    vLLM on a CPU runs the teacher with one head of size 32.
    """
    first, second = byte_level(), sentencepiece()
    for name, tokenizer, hidden in (("teacher", first, 32), ("same", first, 24), ("cross", second, 24)):
        ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
        torch.manual_seed(hidden)
        if name == "same":
            shares = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
            sizes = {"n_embd": hidden, "n_layer": 2, "n_head": 2, "n_positions": 128}
            model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer) + 2, **sizes, **shares, **ends))
        else:
            sizes = {
                "hidden_size": hidden,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": teacher_heads if name == "teacher" else 2,
                "attention_dropout": dropout if name == "cross" else 0.0,
            }
            model = LlamaForCausalLM(
                LlamaConfig(vocab_size=len(tokenizer) + (5 if name == "teacher" else 3), **sizes, **ends)
            )
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [{"prompt": line[:8], "output": line[8 : 20 + 3 * k]} for k, line in enumerate(LINES)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare_dataset(folder / "train.jsonl", folder / "teacher-data", student=folder / "teacher")
    for name in ("same", "cross"):
        data = folder / f"{name}-data"
        prepare_dataset(folder / "train.jsonl", data, student=folder / name, teacher=folder / "teacher")
    # Between random heads the projected teacher agrees with nothing, and the term of the student's space would be zero.
    for name in ("teacher", "same", "cross"):
        options = TrainingOptions(steps=steps, batch_size=10, learning_rate=1e-2)
        train(data=folder / f"{name}-data", student=folder / name, options=options, output=folder / f"{name}-run")
        shutil.rmtree(folder / name)
        (folder / f"{name}-run" / "model").rename(folder / name)
        (folder / name / "training_report.json").unlink()


def student_of(method: str) -> str:
    """The student that suits a method."""
    return "same" if methods.get(method).requires.vocabulary == "same" else "cross"


def text_of(method: str) -> dict[str, Any]:
    """Training options without which a method cannot learn: the student's own text, if it learns from that alone."""
    return (
        {"rollouts": {"share": 1.0, "max_new_tokens": 12}} if methods.get(method).requires.on_policy == "always" else {}
    )


def rows_of(data: Any, method: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of a prepared dataset; half of them as if the student had written them, for a method that learns from that."""
    if methods.get(method).requires.on_policy != "always":
        return [data[k] for k in numbers]
    return [{**data[k], "sampled": k % 4 < 2} for k in numbers]


def pairing_as(method: str, collator: Collator) -> Collator:
    """The collator with the pairs that a method requires."""
    return replace(collator, by_position=methods.get(method).requires.pairing == "position")
