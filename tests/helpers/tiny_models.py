"""A model that is as small as one can be, for tests that ask one and do not care what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.smallworld.tokenizers import write_byte_level


def write_gpt2(folder: Path, text: str, **config: Any) -> Path:
    """A GPT-2 of one layer from random weights, on a byte-level tokenizer of `text`."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from dskd.modeling.loading import load_tokenizer

    folder.mkdir(exist_ok=True)
    write_byte_level(folder, [text] * 3)
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(0)
    small = {"n_embd": 32, "n_layer": 1, "n_head": 1, "n_positions": 512}
    end = tokenizer.eos_token_id
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end, **(small | config))
    )
    model.save_pretrained(folder)
    return folder
