"""Attention between the labelled tokens of two models, within each example (arXiv 2406.17328; docs/method.md).

Tokens come flat, one example after the other, and are laid out as [examples, longest, …] for the products; padding takes no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Layout:
    """Where the flat tokens of a batch stand in a tensor [examples, longest, …]; `sizes` [examples] on the CPU."""

    def __init__(self, sizes: Tensor, device: torch.device) -> None:
        self.sizes = sizes
        self.shape = len(sizes), max(int(sizes.max()), 1) if len(sizes) else 1
        places = torch.arange(self.shape[1])
        known = places < sizes[:, None]
        self.known = known.to(device, non_blocking=True)  # [examples, longest]
        self._index = known.flatten().nonzero().squeeze(1).to(device, non_blocking=True)

    def padded(self, tokens: Tensor) -> Tensor:
        """[tokens, columns] -> [examples, longest, columns], zero where there is no token."""
        examples, longest = self.shape
        whole = tokens.new_zeros(examples * longest, tokens.shape[1])
        return whole.index_copy(0, self._index, tokens).view(examples, longest, -1)

    def flat(self, padded: Tensor) -> Tensor:
        """[examples, longest, columns] -> [tokens, columns]."""
        return padded.flatten(0, 1).index_select(0, self._index)

    def each(self, values: Tensor) -> Tensor:
        """A value of each example, [examples] in the memory of the CPU, for each of its tokens [tokens]."""
        return values.repeat_interleave(self.sizes).to(self.known.device, non_blocking=True)

    def scaled(self, tokens: Tensor) -> Tensor:
        """tokens [tokens, columns] divided by the standard deviation of all values of their example; unbiased, as torch.std is."""
        padded = self.padded(tokens)
        known = self.known[..., None]
        numbers = known.sum((1, 2)) * tokens.shape[1]
        means = padded.sum((1, 2)) / numbers.clamp_min(1)
        squares = torch.where(known, padded - means[:, None, None], 0.0).square().sum((1, 2))
        deviations = (squares / (numbers - 1).clamp_min(1)).sqrt()
        return self.flat(padded / torch.where(deviations > 0, deviations, 1.0)[:, None, None])


@dataclass(frozen=True)
class CrossModelAttention:
    """For each token of one model, weights of the other's tokens: [examples, student longest, teacher longest] and transposed."""

    student: Layout
    teacher: Layout
    of_student: Tensor
    of_teacher: Tensor

    @classmethod
    def between(cls, queries: Tensor, keys: Tensor, student: Layout, teacher: Layout) -> CrossModelAttention:
        """queries [student tokens, columns], keys [teacher tokens, columns]; one matrix of scores serves both ways."""
        scores = student.padded(queries) @ teacher.padded(keys).transpose(1, 2) / keys.shape[1] ** 0.5
        return cls(student, teacher, _weights(scores, teacher.known), _weights(scores.transpose(1, 2), student.known))

    def to_student(self, values: Tensor) -> Tensor:
        """values [teacher tokens, columns] -> [student tokens, columns]."""
        return self.student.flat(self.of_student @ self.teacher.padded(values))

    def to_teacher(self, values: Tensor) -> Tensor:
        """values [student tokens, columns] -> [teacher tokens, columns]."""
        return self.teacher.flat(self.of_teacher @ self.student.padded(values))


def _weights(scores: Tensor, known: Tensor) -> Tensor:
    """Softmax over the last dimension of scores [examples, rows, columns], known [examples, columns]."""
    # The lowest number and not −inf: a row without a column would be NaN, and so would its gradient.
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~known[:, None], lowest).softmax(-1) * known[:, None]


class Discriminator(nn.Module):
    """Logits [tokens] that tokens [tokens, columns] are keys and not queries.

    g = σ(U x), then g ⊙ relu(U x) + (1 − g) ⊙ x, dropout, and a perceptron of one hidden layer.
    """

    def __init__(self, columns: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(columns, columns)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(columns, hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.gate(tokens)
        mixed = torch.lerp(tokens, found.relu(), found.sigmoid())
        hidden = self.hidden(self.dropout(mixed))
        logits: Tensor = self.output(nn.functional.leaky_relu(hidden, 0.1)).squeeze(-1)
        return logits


def reverse_gradient(values: Tensor) -> Tensor:
    """The values themselves; their gradient goes on with the opposite sign."""
    return 2 * values.detach() - values  # exact: doubling rounds nothing, nor does this difference
