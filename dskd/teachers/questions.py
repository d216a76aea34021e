"""What a teacher outside the training is asked: texts in its own tokens, and the positions at which its outputs are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dskd.losses.tokens import SideTokens


@dataclass(frozen=True)
class Question:
    """A text, and where it is asked about: the output at position i, from ids[: i + 1], predicts ids[i + 1].

    Attributes:
        ids: [length], the whole text up to its last label.
        positions: [labels], ascending; the last one is length - 2.
    """

    ids: list[int]
    positions: np.ndarray

    @property
    def labels(self) -> list[int]:
        """The tokens that are predicted at the positions [labels]."""
        return [self.ids[position + 1] for position in self.positions.tolist()]


def questions_of(side: SideTokens) -> list[Question]:
    """One for each example of a batch on the CPU, padded or packed.

    Their positions, one question after the other, are the labelled tokens of the batch in their order.
    """
    ids, labelled = side.input_ids.flatten().numpy(), side.labelled.numpy()
    begins = labelled - side.position_ids.flatten().numpy()[labelled]  # an example's positions count from 0
    cuts = np.flatnonzero(np.diff(begins)) + 1
    questions = []
    for own in np.split(labelled, cuts) if len(labelled) else []:
        begin = own[0] - side.position_ids.flatten()[own[0]].item()
        questions.append(Question(ids[begin : own[-1] + 2].tolist(), own - begin))
    return questions


def question_of_row(ids: np.ndarray, spans: Sequence[tuple[int, int]]) -> Question:
    """The question of an example: its ids [length], and the [first, last) of each turn's labels."""
    positions = np.concatenate([np.arange(first - 1, last - 1) for first, last in spans])
    return Question(ids[: spans[-1][1]].tolist(), positions)


def in_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The numbers of texts of these lengths, the longest first, in batches of at most so many tokens with padding, or of one text."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
