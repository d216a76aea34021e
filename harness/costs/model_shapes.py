"""Shapes of models and sizes of data sets, from their files or, if they are published, from the tables below.

With the tables, a matrix of published models can be planned on a machine without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any


@dataclass(frozen=True)
class Shape:
    """The dimensions of a model. `gated`: MLPs have three matrices (like Llama) instead of two (GPT-2)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    gated: bool = True
    query_bias: bool = False  # Qwen2: biases of queries, keys and values only
    positions: int = 0  # size of a learned position embedding

    @property
    def linear(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each linear map of a layer."""
        queries, keys = self.heads * self.head_size, self.key_value_heads * self.head_size
        if not self.gated:  # queries, keys and values are one map
            attention = [(self.hidden, queries + 2 * keys), (queries, self.hidden)]
        else:
            attention = [(self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden)]
        inward = [(self.hidden, self.intermediate)] * (2 if self.gated else 1)
        return [*attention, *inward, (self.intermediate, self.hidden)]

    @property
    def layer_parameters(self) -> int:
        """The parameters of all layers, with norms and biases."""
        per_layer = sum(inputs * outputs for inputs, outputs in self.linear)
        if self.gated:
            per_layer += 2 * self.hidden
            per_layer += (self.heads + 2 * self.key_value_heads) * self.head_size if self.query_bias else 0
        else:
            per_layer += sum(outputs for _, outputs in self.linear) + 4 * self.hidden
        return self.layers * per_layer

    @property
    def head_parameters(self) -> int:
        """The parameters of the output head, which is also the embedding if they are tied."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """The parameters of the whole model."""
        norm = self.hidden if self.gated else 2 * self.hidden
        tables = (1 if self.tied else 2) * self.head_parameters + self.positions * self.hidden
        return self.layer_parameters + tables + norm


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """The shape in a model's configuration, or None if it is of an unknown kind."""

    def number(*names: str) -> int | None:
        return next((config[name] for name in names if type(config.get(name)) is int), None)

    kind = str(config.get("model_type", ""))
    gated = kind != "gpt2"
    layers, hidden = number("num_hidden_layers", "n_layer"), number("hidden_size", "n_embd")
    heads, vocabulary = number("num_attention_heads", "n_head"), number("vocab_size")
    intermediate = number("intermediate_size", "n_inner") or (None if gated or hidden is None else 4 * hidden)
    if layers is None or hidden is None or heads is None or vocabulary is None or intermediate is None:
        return None
    return Shape(
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_value_heads=number("num_key_value_heads") or heads,
        head_size=number("head_dim") or hidden // heads,
        vocabulary=vocabulary,
        tied=bool(config.get("tie_word_embeddings", kind.startswith(("gpt2", "gemma")))),
        gated=gated,
        query_bias=kind == "qwen2",
        positions=0 if gated else number("n_positions") or 1024,
    )


def _gpt2(layers: int, hidden: int, heads: int) -> Shape:
    size = hidden // heads
    return Shape(layers, hidden, 4 * hidden, heads, heads, size, 50_257, tied=True, gated=False, positions=1024)


_QWEN2_5_7B = Shape(28, 3584, 18_944, 28, 4, 128, 152_064, tied=False, query_bias=True)

# By the id on the Hugging Face hub; from the configuration published there.
PUBLISHED_MODELS: dict[str, Shape] = {
    "openai-community/gpt2": _gpt2(12, 768, 12),
    "openai-community/gpt2-medium": _gpt2(24, 1024, 16),
    "openai-community/gpt2-large": _gpt2(36, 1280, 20),
    "openai-community/gpt2-xl": _gpt2(48, 1600, 25),
    "MiniLLM/teacher-gpt2-1.5B": _gpt2(48, 1600, 25),
    "Qwen/Qwen1.5-1.8B": Shape(24, 2048, 5504, 16, 16, 128, 151_936, tied=False, query_bias=True),
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": Shape(22, 2048, 5632, 32, 4, 64, 32_000, tied=False),
    "meta-llama/Llama-2-7b-hf": Shape(32, 4096, 11_008, 32, 32, 128, 32_000, tied=False),
    "mistralai/Mistral-7B-v0.1": Shape(32, 4096, 14_336, 32, 8, 128, 32_000, tied=False),
    "meta-llama/Llama-3.2-1B": Shape(16, 2048, 8192, 32, 8, 64, 128_256, tied=True),
    "Qwen/Qwen2.5-1.5B": Shape(28, 1536, 8960, 12, 2, 128, 151_936, tied=True, query_bias=True),
    "Qwen/Qwen2.5-7B-Instruct": _QWEN2_5_7B,
    "Qwen/Qwen2.5-Math-7B": _QWEN2_5_7B,
    "Qwen/Qwen2.5-Coder-7B": _QWEN2_5_7B,
}


@dataclass(frozen=True)
class DataSize:
    """The number of examples of a training set, and the mean bytes of a prompt and of a response (UTF-8)."""

    examples: int
    prompt_bytes: float
    response_bytes: float
    source: str  # where these numbers come from


# By the last two parts of the path.
PUBLISHED_DATA: dict[str, DataSize] = {
    "dolly/train.jsonl": DataSize(
        11_435, 324, 362, "published count; bytes measured on the 1,000 examples of its dev set"
    ),
    "metamathqa/sample-50k.jsonl": DataSize(50_000, 400, 1000, "published count; bytes assumed"),
    "magicoder/sample-10k.jsonl": DataSize(10_000, 1000, 1500, "published count; bytes assumed"),
}


def published_model(path: str) -> Shape | None:
    """The shape of a published model, by a path that ends with its hub id."""
    return PUBLISHED_MODELS.get("/".join(PurePath(path).parts[-2:]))


def published_data(path: str) -> DataSize | None:
    """The size of a published data set, by a path that ends with its folder and file."""
    return PUBLISHED_DATA.get("/".join(PurePath(path).parts[-2:]))
