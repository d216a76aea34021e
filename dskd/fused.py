"""Any method's loss in chunks of tokens, with the gradients computed in the forward (performance bar P1).

The unfused loss keeps several [tokens, vocabulary] tensors from its forward to its backward. Here the labelled tokens are taken a
chunk at a time: the method's own terms are computed for the chunk, differentiated at once, and dropped. What stays is one gradient
per hidden state and one per weight of the head, so memory does not grow with tokens × vocabulary. The terms are the method's own,
so fused and unfused are one objective. This needs terms that are sums over tokens, and the counts of the whole step: given, or
found in a first pass where the batch is the whole step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dskd.heads import Head
from dskd.methods.base import LabelledTokens, Method, Term

# A float32 [chunk, vocabulary] tensor of this size: large enough for efficient products and for the sum of the head's gradients to
# be no burden, small enough that the dozen of them that a loss needs stay far below what a model takes.
_CHUNK_BYTES = 64 * 2**20
_LEAST_CHUNK = 256  # fewer, and adding up the gradient of a large head costs more than the products


def default_chunk_tokens(vocabulary_size: int) -> int:
    """Tokens a chunk for heads of at most so many rows."""
    return max(_LEAST_CHUNK, _CHUNK_BYTES // (4 * vocabulary_size))


def chunk_size(batch: LabelledTokens, chunk_tokens: int | None) -> int:
    """`chunk_tokens`, or what suits the larger of the batch's heads."""
    heads = [head for head in (batch.student_head, batch.teacher_head) if head is not None]
    return chunk_tokens or default_chunk_tokens(max(head.weight.shape[0] for head in heads))


def chunks(batch: LabelledTokens, tokens: int) -> list[LabelledTokens]:
    """The batch in parts of at most so many of the student's labelled tokens; one empty part for an empty batch."""
    total = len(batch.student_labels)
    return [batch.part(first, min(first + tokens, total)) for first in range(0, max(total, 1), tokens)]


@torch.no_grad()
def chunked_counts(method: Method, batch: LabelledTokens, chunk_tokens: int | None = None) -> dict[str, Tensor]:
    """`method.counts`, a chunk at a time where the method's terms are sums over tokens."""
    if not method.per_token:
        return method.counts(batch)
    parts = [method.counts(part) for part in chunks(batch, chunk_size(batch, chunk_tokens))]
    return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}


def fused_loss(
    method: Method,
    batch: LabelledTokens,
    totals: dict[str, Tensor] | None,
    parameters: Sequence[nn.Parameter] = (),
    chunk_tokens: int | None = None,
) -> tuple[Tensor, dict[str, Term]]:
    """(objective of the terms divided by `totals`, {term: its sum over the batch and its total, detached}).

    Gradients reach batch.student_hidden, weight and bias of batch.student_head, and `parameters` (what the method trains besides:
    its projectors). `totals` are the counts of the whole optimizer step; None where this batch is the whole step. The weight's
    gradient is added up in float32 also where products are in bfloat16.
    """
    if totals is None and not method.first_terms:
        totals = chunked_counts(method, batch, chunk_tokens)
    head = batch.student_head
    tokens = chunk_size(batch, chunk_tokens)
    names: list[str] = []
    loss, sums, counts = _FusedLoss.apply(
        method, batch, totals, tokens, names, batch.student_hidden, head.weight, head.bias, *parameters
    )
    pairs = zip(sums.unbind(), counts.unbind(), strict=True)
    return loss, {name: Term(total, count) for name, (total, count) in zip(names, pairs, strict=True)}


class _AddingLinear(torch.autograd.Function):
    """hidden Wᵀ + b, whose backward adds to given gradient buffers in place instead of returning a [vocabulary, hidden] tensor."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight_gradient: Tensor | None,
        bias_gradient: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.buffers = weight_gradient, bias_gradient
        return nn.functional.linear(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        hidden, weight = ctx.saved_tensors
        weight_gradient, bias_gradient = ctx.buffers
        if weight_gradient is not None:
            if gradient.dtype == hidden.dtype == weight_gradient.dtype:
                weight_gradient.addmm_(gradient.T, hidden)
            else:
                weight_gradient += gradient.T @ hidden.to(gradient.dtype)
        if bias_gradient is not None:
            bias_gradient += gradient.sum(0, dtype=bias_gradient.dtype)
        return gradient @ weight, None, None, None, None


class _Gradients:
    """Where the gradients of one fused loss are added up, in float32: of hidden states, head and a method's parameters."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, parameters: Sequence[Tensor]) -> None:
        self.inputs = [hidden, weight, bias, *parameters]
        self.hidden = torch.zeros_like(hidden)
        self.head = [_zeros(weight), _zeros(bias)]
        self.trained = [parameter for parameter in parameters if parameter.requires_grad]
        self.parameters = [_zeros(parameter) for parameter in parameters]

    def add(self, share: Tensor, leaf: Tensor, first: int) -> None:
        """Differentiate a chunk's share of the loss; what reaches the head has its own way (_AddingLinear)."""
        found = torch.autograd.grad(share, [leaf, *self.trained], allow_unused=True)
        if found[0] is not None:
            self.hidden[first : first + len(leaf)] += found[0]
        buffers = [buffer for buffer in self.parameters if buffer is not None]
        for total, gradient in zip(buffers, found[1:], strict=True):
            if gradient is not None:
                total += gradient

    def divide(self, count: Tensor) -> None:
        """Divide what was added so far; nothing has reached the head yet."""
        for buffer in (self.hidden, *self.parameters):
            if buffer is not None:
                buffer /= count

    def scaled(self, factor: Tensor) -> list[Tensor | None]:
        """The gradients of the inputs, in their dtypes."""
        buffers = [self.hidden, *self.head, *self.parameters]
        return [
            None if buffer is None or tensor is None else buffer.mul_(factor).to(tensor.dtype)
            for buffer, tensor in zip(buffers, self.inputs, strict=True)
        ]


def _zeros(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or not tensor.requires_grad:
        return None
    return torch.zeros_like(tensor, dtype=torch.float32)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        method: Method,
        batch: LabelledTokens,
        totals: dict[str, Tensor] | None,
        tokens: int,
        names: list[str],
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *parameters: nn.Parameter,
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradients = _Gradients(hidden, weight, bias, parameters)
        head = _adding_head(batch.student_head, *gradients.head)
        parts = chunks(replace(batch, student_hidden=hidden.detach(), student_head=head), tokens)
        if totals is not None:
            sums, _ = _take(method, method.terms, parts, totals, gradients)
            counts = totals
        else:
            # Undivided at first: one count divides all of these terms, and so their gradients, once it is known.
            sums, counts = _take(method, method.first_pass, parts, None, gradients)
            gradients.divide(counts[min(method.first_terms)].clamp_min(1.0))

            def second_pass(part: LabelledTokens) -> dict[str, Term]:
                return {name: Term(value, counts[name]) for name, value in method.second_pass(part).items()}

            sums |= _take(method, second_pass, parts, counts, gradients)[0]
        names[:] = sums
        loss = method.objective({name: sums[name] / counts[name].clamp_min(1.0) for name in names})
        stacked = torch.stack([sums[name] for name in names]), torch.stack([counts[name] for name in names])
        ctx.mark_non_differentiable(*stacked)
        ctx.gradients = gradients
        return loss, *stacked

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return (None, None, None, None, None, *gradients.scaled(upstream[0]))


def _take(
    method: Method,
    terms_of: Callable[[LabelledTokens], dict[str, Term]],
    parts: Sequence[LabelledTokens],
    totals: dict[str, Tensor] | None,
    gradients: _Gradients,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Compute terms chunk by chunk and differentiate their share of the objective; ({term: sum}, {term: count}) of all chunks."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    # Of two passes, each adds its own terms to the objective; the others' are zero.
    absent = dict.fromkeys(totals or {}, torch.zeros((), device=gradients.hidden.device))
    first = 0
    for part in parts:
        with torch.enable_grad():
            leaf = part.student_hidden.detach().requires_grad_()
            terms = terms_of(replace(part, student_hidden=leaf))
            divisors = {name: 1.0 if totals is None else totals[name].clamp_min(1.0) for name in terms}
            means = {name: term.sum / divisors[name] for name, term in terms.items()}
            share = method.objective(absent | means)
        gradients.add(share, leaf, first)
        for name, term in terms.items():
            sums[name] = sums[name] + term.sum.detach().float() if name in sums else term.sum.detach().float()
            counts[name] = counts[name] + term.count if name in counts else term.count
        first += len(leaf)
    return sums, counts


def _adding_head(head: Head, weight_gradient: Tensor | None, bias_gradient: Tensor | None) -> Head:
    """The head with its weights cast once, for all chunks, and a product that adds up the gradients by itself."""
    device = head.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype

    def product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _AddingLinear.apply(hidden, weight, bias, weight_gradient, bias_gradient)

    bias = None if head.bias is None else head.bias.detach().to(dtype)
    return replace(head, weight=head.weight.detach().to(dtype), bias=bias, product=product)
