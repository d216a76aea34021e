"""Small Llamas that were trained for a moment, so that their heads are of use to them alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.llama_folders import write_llama


def write_trained_llama(folder: Path, texts: Sequence[str], *, steps: int = 40, **options: Any) -> Path:
    """A Llama of `write_llama`, trained on one text a step."""
    write_llama(folder, **options)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        ids = tokenizer(texts[step % len(texts)], return_tensors="pt")["input_ids"]
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder
