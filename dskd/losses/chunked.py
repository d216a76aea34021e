"""Any method's loss in chunks of tokens, with the gradients computed in the forward (docs/performance.md).

The method's own terms are computed a chunk at a time, differentiated at once, and dropped, so memory does not grow with tokens ×
vocabulary. This needs terms that are sums over tokens, and the counts of the whole step: given, or found in a first pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dskd.losses.buffer_pool import BufferPool, empty_from_pool
from dskd.losses.tokens import Loss, LossTerm, TokenBatch, TwoPassLoss
from dskd.modeling.lm_head import Head

# A float32 [chunk, vocabulary] tensor of this size: large enough for efficient products, small enough that the three or four of them
# that a loss needs stay below what a model takes.
_CHUNK_BYTES = 64 * 2**20
# With fewer tokens, adding up the gradient of a large head costs more than the products: on a CPU 128 take a tenth
# longer than 512, and 64 a third (docs/performance.md). A GPU multiplies faster than it reads and writes a head.
_LEAST_CHUNK = {"cpu": 128}
_LEAST_CHUNK_ELSEWHERE = 512
# What the first of two passes may leave for the second (TokenBatch.recomputable); the rest is computed again.
_RECOMPUTABLE_BYTES = 256 * 2**20


def default_chunk_tokens(vocabulary_size: int, device: str = "cpu") -> int:
    """Tokens a chunk for heads of at most so many rows, on a device of this type."""
    return max(_LEAST_CHUNK.get(device, _LEAST_CHUNK_ELSEWHERE), _CHUNK_BYTES // (4 * vocabulary_size))


def chunk_size(batch: TokenBatch, chunk_tokens: int | None) -> int:
    """`chunk_tokens`, or what suits the larger of the batch's heads."""
    sides = batch.student, batch.teacher
    heads = [side.head for side in sides if side is not None and side.head is not None]
    rows, device = max(head.weight.shape[0] for head in heads), batch.student.head.weight.device.type
    return chunk_tokens or default_chunk_tokens(rows, device)


def chunks(batch: TokenBatch, tokens: int) -> list[TokenBatch]:
    """The batch in parts of at most so many of the student's labelled tokens, of nearly one size; one empty part for an empty batch."""
    total = len(batch.student.labels)
    size = math.ceil(total / max(1, math.ceil(total / tokens))) or 1
    return [batch.part(first, min(first + size, total)) for first in range(0, max(total, 1), size)]


@torch.no_grad()
def chunked_counts(method: Loss, batch: TokenBatch, chunk_tokens: int | None = None) -> dict[str, Tensor]:
    """`method.counts` a chunk at a time, for a method whose terms are sums over tokens."""
    parts = [method.counts(part) for part in chunks(batch, chunk_size(batch, chunk_tokens))]
    return {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}


def chunked_loss(
    method: Loss,
    batch: TokenBatch,
    totals: dict[str, Tensor] | None,
    parameters: Sequence[nn.Parameter] = (),
    chunk_tokens: int | None = None,
) -> tuple[Tensor, dict[str, LossTerm]]:
    """A method's loss of a batch, a chunk of tokens at a time.

    Gradients reach the student's hidden states, the weight and bias of its head, and `parameters`; the head's in float32.

    Args:
        method: Its terms are sums over tokens.
        batch: A micro-batch with both models' heads and hidden states.
        totals: The normalizers of the whole optimizer step; None where this batch is the whole step.
        parameters: What the method trains besides, its projectors.
        chunk_tokens: Tokens a chunk; by default as many as suit the vocabulary.

    Returns:
        (the objective, {term: its sum over the batch and its normalizer}).
    """
    if totals is None and not isinstance(method, TwoPassLoss):
        totals = chunked_counts(method, batch, chunk_tokens)
    head = batch.student.head
    tokens = chunk_size(batch, chunk_tokens)
    names: list[str] = []
    loss, sums, counts = _ChunkedLoss.apply(
        method, batch, totals, tokens, names, batch.student.hidden, head.weight, head.bias, *parameters
    )
    pairs = zip(sums.unbind(), counts.unbind(), strict=True)
    return loss, {name: LossTerm(total, count) for name, (total, count) in zip(names, pairs, strict=True)}


class _ChunkLinear(torch.autograd.Function):
    """hidden Wᵀ + b into memory of the pool; its backward adds gradients up in a `_HeadGradient` and makes none of W's size."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head_gradient: _HeadGradient | None
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.head_gradient = head_gradient
        logits = empty_from_pool((len(hidden), len(weight)), weight)
        return (
            torch.mm(hidden, weight.T, out=logits) if bias is None else torch.addmm(bias, hidden, weight.T, out=logits)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        hidden, weight = ctx.saved_tensors
        if ctx.head_gradient is not None:
            ctx.head_gradient.add(gradient, hidden)
        return gradient @ weight, None, None, None


class _HeadGradient:
    """The gradient of a head's weight and bias, added up in float32 and in place; what takes no gradient stays None."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._wanted = weight.requires_grad, bias is not None and bias.requires_grad
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def add(self, gradient: Tensor, hidden: Tensor) -> None:
        """The share of some tokens: gradient [tokens, rows] of their logits, hidden [tokens, hidden]."""
        of_weight, of_bias = self._wanted
        if of_weight and self.weight is None:
            self.weight = (gradient.T @ hidden.to(gradient.dtype)).float()
        elif self.weight is not None and gradient.dtype == hidden.dtype == torch.float32:
            self.weight.addmm_(gradient.T, hidden)
        elif self.weight is not None:
            self.weight += gradient.T @ hidden.to(gradient.dtype)
        if of_bias:
            added = gradient.sum(0, dtype=torch.float32)
            self.bias = added if self.bias is None else self.bias.add_(added)


class _Gradients:
    """Where the gradients of one chunked loss are added up, in float32: of hidden states, head and a method's parameters."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, parameters: Sequence[Tensor]) -> None:
        self.inputs = [hidden, weight, bias, *parameters]
        self.hidden = torch.zeros_like(hidden)
        self.head = _HeadGradient(weight, bias)
        self.trained = [parameter for parameter in parameters if parameter.requires_grad]
        self.parameters = [_zeros(parameter) for parameter in parameters]

    def add(self, share: Tensor, leaf: Tensor, first: int) -> None:
        """Differentiate a chunk's share of the loss; what reaches the head has its own way (_ChunkLinear)."""
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
        buffers = [self.hidden, self.head.weight, self.head.bias, *self.parameters]
        return [
            None if buffer is None or tensor is None else buffer.mul_(factor).to(tensor.dtype)
            for buffer, tensor in zip(buffers, self.inputs, strict=True)
        ]


def _zeros(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or not tensor.requires_grad:
        return None
    return torch.zeros_like(tensor, dtype=torch.float32)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        method: Loss,
        batch: TokenBatch,
        totals: dict[str, Tensor] | None,
        tokens: int,
        names: list[str],
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *parameters: nn.Parameter,
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradients = _Gradients(hidden, weight, bias, parameters)
        pool = BufferPool()
        head = _chunk_head(batch.student.head, gradients.head)
        detached = replace(batch, student=replace(batch.student, hidden=hidden.detach(), head=head))
        if batch.teacher is not None and batch.teacher.head is not None:
            detached.teacher = replace(batch.teacher, head=_chunk_head(batch.teacher.head, None))
        parts = chunks(detached, tokens)
        if totals is not None:
            sums, _ = _take(method, method.terms, parts, totals, gradients, pool, batch.metrics)
            counts = totals
        else:
            assert isinstance(method, TwoPassLoss)
            two_pass: TwoPassLoss = method
            # Undivided at first: one count divides all of these terms, and so their gradients, once it is known.
            sums, counts = _take(method, two_pass.first_pass, parts, None, gradients, pool, batch.metrics)
            gradients.divide(counts[min(two_pass.first_terms)].clamp_min(1.0))

            def second_pass(part: TokenBatch) -> dict[str, LossTerm]:
                return {name: LossTerm(value, counts[name]) for name, value in two_pass.second_pass(part).items()}

            sums |= _take(method, second_pass, parts, counts, gradients, pool, batch.metrics)[0]
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
    method: Loss,
    terms_of: Callable[[TokenBatch], dict[str, LossTerm]],
    parts: Sequence[TokenBatch],
    totals: dict[str, Tensor] | None,
    gradients: _Gradients,
    pool: BufferPool,
    metrics: dict[str, LossTerm],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Differentiate terms chunk by chunk; ({term: sum}, {term: count}) of all chunks. Other metrics are added up in `metrics`."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    # Of two passes, each adds its own terms to the objective; the others' are zero.
    absent = dict.fromkeys(totals or {}, torch.zeros((), device=gradients.hidden.device))
    first = large = 0
    for part in parts:
        with torch.enable_grad(), pool:
            leaf = part.student.hidden.detach().requires_grad_()
            terms = terms_of(replace(part, student=replace(part.student, hidden=leaf)))
            divisors = {name: 1.0 if totals is None else totals[name].clamp_min(1.0) for name in terms}
            means = {name: term.total / divisors[name] for name, term in terms.items()}
            share = method.objective(absent | means)
        gradients.add(share, leaf, first)
        for name, term in terms.items():
            sums[name] = sums[name] + term.total.detach().float() if name in sums else term.total.detach().float()
            counts[name] = counts[name] + term.normalizer if name in counts else term.normalizer
        for name, metric in part.metrics.items():
            metrics[name] = metrics[name].plus(metric) if name in metrics else metric
        part.metrics.clear()  # another pass over this part has others
        first += len(leaf)
        large += sum(value.nbytes for value in part.recomputable.values())
        if large > _RECOMPUTABLE_BYTES:
            part.recomputable.clear()
        del terms, means, share  # the memory that they share with the chunk's tensors
    return sums, counts


def _chunk_head(head: Head, gradient: _HeadGradient | None) -> Head:
    """The head with its weights cast once, for all chunks, and a product that adds up the gradients by itself."""
    device = head.weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype

    def product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _ChunkLinear.apply(hidden, weight, bias, gradient)

    def constant_product(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _ChunkLinear.apply(hidden, weight, bias, None)

    bias = None if head.bias is None else head.bias.detach().to(dtype)
    return replace(
        head, weight=head.weight.detach().to(dtype), bias=bias, product=product, constant_product=constant_product
    )
