"""Which examples a batch holds: at random or of like length, so many examples or as many as fit into a budget of tokens.

The batches of an epoch follow from seed and epoch alone, however many processes share them (docs/batches.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import BatchSampler, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from dskd.data.collator import Collator
from dskd.errors import InputError
from dskd.modeling.eval_mode import evaluating
from dskd.modeling.lm_head import labelled_hidden_states

Grouping = Literal["random", "length_grouped"]

# Sorted by length are parts of an epoch's random order of about so many batches, all equally large: enough for little padding (a
# part of 15 has four times as much as one of 50), and few enough for batches to differ from epoch to epoch in larger data sets.
SORTED_BATCHES = 50


class EpochBatches(Sampler[list[int]]):
    """Batches of example numbers, for `DataLoader(batch_sampler=...)`; each example once an epoch.

    The scheduler needs a fixed number of batches, so every epoch has as many as epoch 0. If a later order needs more, the emptiest are
    repacked by length; if fewer, the largest are split. Batches that do not divide evenly among processes are dropped, different ones
    each epoch.

    Args:
        lengths: Tokens of each example, of the longer side [examples].
        seed: Of the order.
        batch_size: Examples per batch; exactly one of this and `batch_tokens` is given.
        batch_tokens: Largest number of tokens per batch.
        grouping: `random`, or `length_grouped` for less padding.
        padded: Whether `batch_tokens` counts padding.
        rank: This process.
        world: Number of processes.

    Raises:
        InputError: For an example longer than the budget, and for fewer batches than processes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        seed: int,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        grouping: Grouping = "random",
        padded: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if (batch_size is None) == (batch_tokens is None):
            raise ValueError("give either batch_size or batch_tokens")
        self.lengths = [int(length) for length in lengths]
        longest = max(self.lengths, default=0)
        if batch_tokens is not None and longest > batch_tokens:
            raise InputError(
                f"batch_tokens: {batch_tokens}, but example {self.lengths.index(longest)} has {longest} tokens; "
                f"fix: set batch_tokens to {longest} or more, or prepare the data with max_length {batch_tokens}"
            )
        self.seed = seed
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.grouping = grouping
        self.padded = padded
        self.rank = rank
        self.world = world
        self.epoch = 0
        self._number = len(self._cut(self._generator()))
        if self._number < world:
            raise InputError(
                f"batches: {self._number} an epoch for {world} processes; fix: use smaller batches or fewer processes"
            )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self._number // self.world

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.global_batches()
        return iter(batches[self.rank : len(self) * self.world : self.world])

    def global_batches(self) -> list[list[int]]:
        """All batches of the epoch, of all processes in turn, also those at the end that do not go round."""
        generator = self._generator()
        batches = self._cut(generator)
        if len(batches) > self._number:
            batches = self._merge(batches)
        batches = _split(batches, self._number)
        if self.grouping == "length_grouped" or self.batch_tokens is not None:
            batches = [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
        return batches

    def _generator(self) -> torch.Generator:
        # Seed and epoch are mixed: added up, epoch 1 of seed 0 would be epoch 0 of seed 1.
        mixed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return torch.Generator().manual_seed(mixed)

    def _cut(self, generator: torch.Generator) -> list[list[int]]:
        if self.grouping == "random" or not self.lengths:
            order = torch.randperm(len(self.lengths), generator=generator).tolist()
        else:
            size = self.batch_size or max(1, (self.batch_tokens or 0) * len(self.lengths) // max(sum(self.lengths), 1))
            batches_in_all = -(-len(self.lengths) // size)
            parts = max(1, round(batches_in_all / SORTED_BATCHES))
            order = get_length_grouped_indices(self.lengths, size, -(-batches_in_all // parts), generator=generator)
        if self.batch_size is not None:
            return list(BatchSampler(order, self.batch_size, drop_last=False))
        batches: list[list[int]] = []
        size = longest = total = 0
        for example in order:
            length = self.lengths[example]
            if not batches or not self._fits(size + 1, max(longest, length), total + length):
                batches.append([])
                size = longest = total = 0
            batches[-1].append(example)
            size, longest, total = size + 1, max(longest, length), total + length
        return batches

    def _fits(self, size: int, longest: int, total: int) -> bool:
        assert self.batch_tokens is not None
        return (size * longest if self.padded else total) <= self.batch_tokens

    def _merge(self, batches: list[list[int]]) -> list[list[int]]:
        """As many batches as every epoch has: the emptiest, twice the surplus or more, are packed anew into fewer."""
        surplus = len(batches) - self._number
        emptiest = sorted(range(len(batches)), key=lambda k: sum(self.lengths[j] for j in batches[k]))
        taken = 2 * surplus
        while True:
            pool = [example for k in emptiest[:taken] for example in batches[k]]
            merged, complete = self._first_fit(pool, min(taken, len(batches)) - surplus)
            if complete or taken >= len(batches):
                return [batches[k] for k in sorted(emptiest[taken:])] + merged
            taken *= 2

    def _first_fit(self, examples: list[int], number: int) -> tuple[list[list[int]], bool]:
        """At most `number` batches within the budget, and whether they hold all the examples."""
        batches: list[list[int]] = []
        totals: list[int] = []
        complete = True
        for example in sorted(examples, key=lambda k: -self.lengths[k]):
            length = self.lengths[example]
            for k, batch in enumerate(batches):
                if self._fits(len(batch) + 1, self.lengths[batch[0]], totals[k] + length):
                    batch.append(example)
                    totals[k] += length
                    break
            else:
                if len(batches) < number:
                    batches.append([example])
                    totals.append(length)
                else:
                    complete = False
        return batches, complete


def _split(batches: list[list[int]], number: int) -> list[list[int]]:
    """So many batches: again and again the largest, the first of equally large ones, gives way to its two halves."""
    halves: dict[tuple[int, ...], list[int]] = {
        (k,): batch for k, batch in enumerate(batches)
    }  # by their place: (3, 1) is the second half of batch 3
    largest = [(-len(batch), place) for place, batch in halves.items()]
    heapq.heapify(largest)
    while len(halves) < number:
        _, place = heapq.heappop(largest)
        batch = halves.pop(place)
        middle = len(batch) // 2
        for half, part in enumerate((batch[:middle], batch[middle:])):
            halves[(*place, half)] = part
            heapq.heappush(largest, (-len(part), (*place, half)))
    return [halves[place] for place in sorted(halves)]


def supports_packing(model: Any, row_length: int | None = None) -> bool:
    """Whether a transformers causal model keeps packed examples apart, found by running it on short random ones.

    Not so are models that carry a state from token to token, such as ignore position ids, and kernels that take one packed row only.
    """
    generator = torch.Generator().manual_seed(0)
    size = model.get_input_embeddings().weight.shape[0]
    rows = [
        {"student_ids": torch.randint(size, (length,), generator=generator).tolist(), "student_prompt_length": 1}
        for length in (12, 9, 8, 7, 5, 3)
    ]
    weight = model.get_output_embeddings().weight
    batches = [Collator(packing=p, row_length=row_length)(rows).to(weight.device) for p in (False, True)]
    with evaluating(model), torch.no_grad():  # dropout would differ between the two
        apart, packed = (labelled_hidden_states(model, batch.student) for batch in batches)
    difference = (packed - apart).float().norm(dim=-1) / apart.float().norm(dim=-1)
    # Rounding differs with the shapes, on a GPU up to 1e-3 where float32 products are made in TF32; another example's tokens change
    # far more.
    return bool(difference.max() <= max(torch.finfo(weight.dtype).eps ** 0.5, 5e-3))
