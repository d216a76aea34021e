"""A causal model's output head as one thing, and the hidden states that enter it.

The head's map is soft-cap(scale · (W h + b)); weights may be tied to the embedding, and may have more rows than the tokenizer has
tokens. The hidden state to project is the exact input of the head, whatever norms and scalings come before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dskd.errors import InputError


@dataclass(frozen=True)
class Head:
    """weight [rows, hidden], bias [rows] or None, a factor on the logits and a final soft-cap (Gemma 2), 0 where there is none.

    `size` is the number of real tokens: rows beyond it are padding, which `logits` leaves out.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float
    size: int

    def detach(self) -> Head:
        """The same head, through which no gradient reaches its weights."""
        return replace(self, weight=self.weight.detach(), bias=None if self.bias is None else self.bias.detach())

    def logits(self, hidden: Tensor, *, padded: bool = False) -> Tensor:
        """hidden [tokens, hidden] -> logits [tokens, size], or [tokens, rows] with `padded`."""
        # The whole weight is multiplied and the padding cut from the logits: a slice of the weight would be cast anew on each call
        # under autocast, and its backward would fill a gradient of the whole head with zeros.
        logits = nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)
        if not padded:
            logits = logits[..., : self.size]
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def output_head(model: Any, vocabulary_size: int) -> Head:
    """The live head of a transformers causal model; its weights are the model's own, not a copy.

    Raises InputError where the model has no linear head, or fewer rows than the tokenizer has tokens.
    """
    module = model.get_output_embeddings()
    name = model.name_or_path or type(model).__name__
    if not isinstance(module, nn.Linear):
        raise InputError(
            f"{name}: the output head is {type(module).__name__}, not linear; fix: use a causal language model"
        )
    rows = module.weight.shape[0]
    if rows < vocabulary_size:
        raise InputError(
            f"{name}: the head has {rows} rows but the tokenizer {vocabulary_size} tokens; "
            "fix: use the tokenizer that belongs to the model, or resize its embeddings"
        )
    config = model.config.get_text_config()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = float(getattr(config, "final_logit_softcapping", None) or 0.0)
    return Head(module.weight, module.bias, scale, softcap, vocabulary_size)


def final_hidden_states(model: Any, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> Tensor:
    """The input of the output head [batch, length, hidden], without computing logits at every position.

    A hook keeps what enters the head and hands on a single position, so that no [length, vocabulary] tensor is made; it works for
    every model whose head is a module, also where transformers offers no way to ask for the last hidden state after the norm.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        kept.append(arguments[0])
        return (arguments[0][:, :1], *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False)
    finally:
        handle.remove()
    return kept[0]
