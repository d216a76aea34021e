"""A tiny model that was trained to reason, with `<think>` as text, as added tokens or as special tokens of its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.engines._types import Sampling
from helpers.tiny_tokenizers import byte_level

KINDS = ("text", "added", "special")
STOP = ("\n\n", "Q:")
# Prompt and what follows. Every stop string stands in reasoning too; the third prompt opens the reasoning itself.
SAID = {
    "Q: two and two?\nA:": "<think>Two and two.\n\nQ: is it four?</think>\n\n4 apples\n\nQ: more",
    "Q: three and three?\nA:": " six foxes\n\nQ: more",
    "Q: nine nines?\nA:<think>\n": "Nine nines.\n\nQ: how many?\n</think>\n81\n\nQ: more",
    "Q: again?\nA:": "<think>" + "and again\n\n" * 10,
    "Q: a story?\nA:": "<think>Long.\n\n</think>" + "the fox and the dog and " * 8,
}
# Of each prompt: reasoning, answer, whether the reasoning ended, and the finish reason, at 56 new tokens.
EXPECTED = [
    ("Two and two.\n\nQ: is it four?", "4 apples", True, "stop"),
    (None, " six foxes", True, "stop"),
    ("Nine nines.\n\nQ: how many?", "81", True, "stop"),
    ("and again", "", False, "length"),
    ("Long.", "the fox", True, "length"),
]
NEW_TOKENS = 56
# What both engines are asked: limits of reasoning that some of the completions reach and others do not.
LIMITS = {
    "free": Sampling(NEW_TOKENS, stop=STOP),
    "cut": Sampling(20 + 6, max_reasoning_tokens=20),
    "cut, stopped": Sampling(12 + 9, stop=STOP, max_reasoning_tokens=12),
    "close": Sampling(9 + 8, max_reasoning_tokens=9, reasoning_end="close"),
    "close, stopped": Sampling(20 + 12, stop=STOP, max_reasoning_tokens=20, reasoning_end="close"),
    "close, sampled": Sampling(9 + 8, temperature=1.0, max_reasoning_tokens=9, reasoning_end="close"),
    "close, no n-gram twice": Sampling(14 + 12, no_repeat_ngram=2, max_reasoning_tokens=14, reasoning_end="close"),
}
_TEMPLATE = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"


def write_reasoning_model(folder: Path, kind: str) -> Path:
    """A Llama of two layers that has learned `SAID` by heart."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_level()
    if kind == "text":
        tokenizer.chat_template = _TEMPLATE  # the only thing that shows its markers
    elif kind == "added":
        tokenizer.add_tokens(["<think>", "</think>"])
    else:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=128,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    _learn_by_heart(model, [_row(tokenizer, prompt, said) for prompt, said in SAID.items()])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _row(tokenizer: Any, prompt: str, said: str) -> tuple[list[int], list[int]]:
    # Prompt and completion apart, as they are when the model is asked.
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, said)]
    return ids[0], [*ids[1], tokenizer.eos_token_id]


def _learn_by_heart(model: Any, rows: list[tuple[list[int], list[int]]]) -> None:
    import torch

    width = max(len(prompt) + len(said) for prompt, said in rows)
    filled = [[0] * (width - len(prompt) - len(said)) for prompt, said in rows]
    ids = torch.tensor([prompt + said + rest for (prompt, said), rest in zip(rows, filled, strict=True)])
    labels = torch.tensor(
        [[-100] * len(prompt) + said + [-100] * len(rest) for (prompt, said), rest in zip(rows, filled, strict=True)]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels).loss
        if loss.item() < 0.02:
            return
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError(f"the model has not learned its rows: loss {loss.item():.2f}")
