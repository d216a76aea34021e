"""A causal model's output head as one thing, and the hidden states that enter it.

The head's map is soft-cap(scale · (W h + b)); weights may be tied to the embedding, and may have more rows than the tokenizer has
tokens. The hidden state to project is the exact input of the head, whatever norms and scalings come before it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dskd.errors import InputError
from dskd.modeling.eval_mode import evaluating


@dataclass(frozen=True)
class Head:
    """The map from the last hidden state to logits: cap(scale · (W h + b)).

    Attributes:
        weight: [rows, hidden].
        bias: [rows] or None.
        scale: A factor on the logits.
        softcap: The final soft-cap (Gemma 2); 0 for none.
        size: The number of real tokens. Rows beyond it are padding, which `logits` leaves out.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float
    size: int
    # hidden [tokens, hidden], weight, bias -> logits [tokens, rows]; the fused loss puts its own here. The second is what the first
    # becomes where the weights take no gradient.
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = nn.functional.linear
    constant_product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = nn.functional.linear

    def detach(self) -> Head:
        """The same head, through which no gradient reaches its weights."""
        bias = None if self.bias is None else self.bias.detach()
        return replace(self, weight=self.weight.detach(), bias=bias, product=self.constant_product)

    def without_padding(self, logits: Tensor) -> Tensor:
        """logits [tokens, rows] -> [tokens, size]; the same tensor where there is no padding, for a slice has a backward."""
        return logits if logits.shape[-1] == self.size else logits[..., : self.size]

    def logits(self, hidden: Tensor, *, padded: bool = False) -> Tensor:
        """hidden [tokens, hidden] -> logits [tokens, size], or [tokens, rows] with `padded`."""
        # The whole weight is multiplied and the padding cut from the logits: a slice of the weight would be cast anew on each call
        # under autocast, and its backward would fill a gradient of the whole head with zeros.
        logits = self.product(hidden.to(self.weight.dtype), self.weight, self.bias)
        if not padded:
            logits = self.without_padding(logits)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


# What models do to the logits after the linear map, by the names in their configurations: a factor to this power, or a soft-cap.
_FACTORS = {"logit_scale": 1, "logits_scaling": -1, "lm_head_multiplier": 1}
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
# Models that have one of the names and mean something else by it: another power, or 0 where it does not act after the head.
_EXCEPTIONS: dict[str, dict[str, int]] = {
    "gemma3": {"final_logit_softcapping": 0},
    "hyperclovax": {"logits_scaling": 1},
    "hyperclovax_vision_v2": {"logits_scaling": 1},
    "minicpm3": {"logits_scaling": 0},  # divides what enters the head
    "mpt": {"logit_scale": 0},  # transformers does not apply it
}
_PROBE_TOKENS = 6
_PROBE_LOGIT = 100.0  # drives any soft-cap in use (15 to 50) far into its bend


def output_head(model: Any, vocabulary_size: int) -> Head:
    """The live output head of a model; its weights are the model's own. Where they are sharded, usable in the model's forward only.

    Args:
        model: A transformers causal model.
        vocabulary_size: The number of real tokens; further rows are padding.

    Raises:
        InputError: Where the model has no linear head, or fewer rows than the tokenizer has tokens.
    """
    module = output_module(model)
    return head_of(model, module.weight, module.bias, vocabulary_size)


@torch.no_grad()
def whole_output_head(model: Any, vocabulary_size: int) -> Head:
    """The live head outside the model's forward, without gradient: gathered where FSDP2 or ZeRO-3 spread it, by all processes."""
    module = output_module(model)
    bias = None if module.bias is None else gathered(module.bias)
    return head_of(model, gathered(module.weight), bias, vocabulary_size)


def is_spread(tensor: Any) -> bool:
    """Whether this process holds a part of the parameter alone: FSDP2 (a DTensor) or ZeRO-3, outside the model's forward."""
    return hasattr(tensor, "full_tensor") or (getattr(tensor, "ds_status", None) is not None and tensor.numel() == 0)


def gathered(tensor: Any) -> Tensor:
    """A parameter as a whole, of which this process may hold a part alone."""
    if hasattr(tensor, "ds_id"):  # DeepSpeed ZeRO-3
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            # The whole is freed at the end of the block.
            return tensor.detach().clone().requires_grad_(tensor.requires_grad)
    if hasattr(tensor, "full_tensor"):  # DTensor, as FSDP2 makes
        return tensor.detach().full_tensor().requires_grad_(tensor.requires_grad)
    return tensor


def check_head(model: Any, vocabulary_size: int) -> None:
    """Raises InputError where the model's logits are not what `Head.logits` makes of its head's input, scaled up to show a soft-cap."""
    head = whole_output_head(model, vocabulary_size)
    name = _name(model)
    entered: list[Tensor] = []

    def scale_up(_module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = arguments[0]
        logits = nn.functional.linear(hidden.to(head.weight.dtype), head.weight)
        largest = (logits.abs().amax() * abs(head.scale)).clamp_min(torch.finfo(torch.float16).tiny)
        entered.append(hidden * (_PROBE_LOGIT / largest))
        return (entered[-1], *arguments[1:])

    generator = torch.Generator().manual_seed(0)  # of its own: a check must not move a run's random numbers
    ids = torch.randint(0, vocabulary_size, (1, _PROBE_TOKENS), generator=generator).to(head.weight.device)
    positions = torch.arange(_PROBE_TOKENS, device=ids.device)[None]
    handle = output_module(model).register_forward_pre_hook(scale_up)
    try:
        with evaluating(model), torch.no_grad():
            given = call(model, ids, torch.ones_like(ids), positions).logits
    except (TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise InputError(
            f"{name}: does not run on token ids alone ({line}); fix: use a causal language model of text"
        ) from error
    finally:
        handle.remove()
    shape = (1, _PROBE_TOKENS, head.weight.shape[1])
    if len(entered) != 1 or entered[0].shape != shape or given.shape[:2] != shape[:2]:
        raise InputError(
            f"{name}: its head is not applied once to each position, so it cannot be distilled; fix: use another model"
        )
    ours = head.logits(entered[0]).float()
    given = given[..., :vocabulary_size].float()
    tolerance = 1e-3 if head.weight.dtype == torch.float32 else 3e-2
    if given.shape != ours.shape or not (given - ours).norm() <= tolerance * ours.norm():
        raise InputError(
            f"{name}: transforms its logits in a way that is not known here ({type(model).__name__}); "
            "fix: use another model, or add its rule to dskd/modeling/lm_head.py"
        )


def final_hidden_states(model: Any, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor) -> Tensor:
    """The input of the output head [batch, length, hidden]; a hook hands on one position, so no [length, vocabulary] tensor is made."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        kept.append(arguments[0])
        # Contiguous: torch would copy the weight for each row of a slice.
        return (arguments[0][:, :1].contiguous(), *arguments[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        call(model, input_ids, attention_mask, position_ids)
    finally:
        handle.remove()
    return kept[0]


def labelled_hidden_states(model: Any, side: Any) -> Tensor:
    """What enters the output head at the labelled tokens [tokens, hidden] of a `dskd.losses.tokens.SideTokens`."""
    hidden = final_hidden_states(model, side.input_ids, side.attention_mask, side.position_ids)
    return hidden.flatten(0, 1)[side.labelled]


def call(model: Any, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor) -> Any:
    """A model's outputs for token ids [batch, length] at these positions, without a cache."""
    arguments: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    # Models without positions (Mamba) or with positions from the mask (Bloom, MPT) refuse to be given any.
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" in inspect.signature(base.forward).parameters:
        arguments["position_ids"] = position_ids
    return model(**arguments)


def output_module(model: Any) -> nn.Linear:
    """The module that is a model's head. InputError where that is not linear, or quantised."""
    module = model.get_output_embeddings()
    if not isinstance(module, nn.Linear):
        raise InputError(
            f"{_name(model)}: the output head is {type(module).__name__}, not linear; "
            "fix: use a causal language model, without an adapter on its head"
        )
    if not module.weight.is_floating_point():
        raise InputError(f"{_name(model)}: the output head is quantised; fix: leave lm_head out of the quantisation")
    return module


def head_of(model: Any, weight: Tensor, bias: Tensor | None, size: int) -> Head:
    """The head that a model has with these weights: what else it does to the logits, its configuration says."""
    if len(weight) < size:
        raise InputError(
            f"{_name(model)}: the head has {len(weight)} rows but the tokenizer {size} tokens; "
            "fix: use the tokenizer that belongs to the model, or resize its embeddings"
        )
    exceptions = _EXCEPTIONS.get(model.config.model_type, {})
    text = model.config.get_text_config(decoder=True)
    scale, softcap = 1.0, 0.0
    for name, power in _FACTORS.items():
        value = getattr(text, name, None)
        if value is not None:
            scale *= float(value) ** exceptions.get(name, power)
    for name in _SOFTCAPS:
        if exceptions.get(name, 1):
            softcap = softcap or float(getattr(text, name, None) or 0.0)
    return Head(weight, bias, scale, softcap, size)


def _name(model: Any) -> str:
    return model.name_or_path or type(model).__name__
