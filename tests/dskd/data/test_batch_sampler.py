"""The batches of an epoch: every example once, the budget kept, the same whatever the number of processes and after a resume."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dskd.data.batch_sampler import EpochBatches, _split
from dskd.errors import InputError

LENGTHS = np.random.default_rng(0).lognormal(5, 0.7, 1003).clip(10, 512).astype(int).tolist()
KINDS = {
    f"{grouping}, {', '.join(f'{key} {value}' for key, value in size.items())}": {"grouping": grouping, **size}
    for grouping in ("random", "length_grouped")
    for size in (
        {"batch_size": 16},
        {"batch_tokens": 4096, "padded": True},
        {"batch_tokens": 4096, "padded": False},
        {"batch_tokens": 600, "padded": True},
    )
}
EPOCHS = range(12)


def _epochs(kind: str, lengths: list[int] = LENGTHS, **changes: Any) -> Iterator[Any]:
    batches = EpochBatches(lengths, **{"seed": 7, **KINDS[kind], **changes})
    for epoch in EPOCHS:
        batches.set_epoch(epoch)
        yield list(batches)


def _tokens(batch: list[int], padded: bool) -> int:
    lengths = [LENGTHS[k] for k in batch]
    return len(lengths) * max(lengths) if padded else sum(lengths)


def _padding_share(epoch: list[list[int]]) -> float:
    places = sum(_tokens(batch, padded=True) for batch in epoch)
    return 1 - sum(_tokens(batch, padded=False) for batch in epoch) / places


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_comes_once_an_epoch(kind: str) -> None:
    for epoch in _epochs(kind):
        assert sorted(itertools.chain(*epoch)) == list(range(len(LENGTHS)))


@given(st.data())
def test_the_largest_batch_is_halved_until_there_are_enough(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    number = data.draw(st.integers(len(sizes), sum(sizes)))
    numbers = iter(range(sum(sizes)))
    batches = [[next(numbers) for _ in range(size)] for size in sizes]
    expected = list(batches)
    while len(expected) < number:
        largest = max(range(len(expected)), key=lambda k: len(expected[k]))
        middle = len(expected[largest]) // 2
        expected[largest : largest + 1] = [expected[largest][:middle], expected[largest][middle:]]
    assert _split(batches, number) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_epoch_has_the_promised_number_of_batches_and_others(kind: str) -> None:
    promised = len(EpochBatches(LENGTHS, seed=7, **KINDS[kind]))
    epochs = list(_epochs(kind))
    assert {len(epoch) for epoch in epochs} == {promised}
    assert len({str(epoch) for epoch in epochs}) == len(epochs)


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_are_not_the_same_batches_in_another_order(kind: str) -> None:
    epochs = itertools.islice(
        _epochs(kind, LENGTHS * 4), 2
    )  # batches of like length in a small data set are nearly the same
    # The longest examples are alone in small batches.
    first, second = ({frozenset(batch) for batch in epoch if len(batch) > 2} for epoch in epochs)
    assert len(first & second) <= 0.05 * len(first)
    assert all(batch for epoch in epochs for batch in epoch)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "batch_tokens" in kind])
def test_no_batch_exceeds_its_budget_and_most_fill_it(kind: str) -> None:
    padded, budget = KINDS[kind]["padded"], KINDS[kind]["batch_tokens"]
    for epoch in _epochs(kind):
        filled = [_tokens(batch, padded) for batch in epoch]
        assert max(filled) <= budget
        assert np.mean(filled) >= (0.5 if budget == 600 else 0.85) * budget


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "batch_size" in kind])
def test_batches_of_a_size_have_it_but_for_one(kind: str) -> None:
    for epoch in _epochs(kind):
        assert sorted(map(len, epoch)) == [1003 % 16] + [16] * (1003 // 16)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_share_the_batches_of_one(kind: str) -> None:
    alone = list(_epochs(kind))
    for world in (2, 3, 8):
        shares = [list(_epochs(kind, rank=rank, world=world)) for rank in range(world)]
        for epoch, whole in enumerate(alone):
            dealt = [share[epoch] for share in shares]
            assert {len(batches) for batches in dealt} == {len(whole) // world}
            in_turn = list(itertools.chain(*zip(*dealt, strict=True)))
            assert in_turn == whole[: len(in_turn)]
            assert len(whole) - len(in_turn) < world


def test_seeds_and_epochs_do_not_repeat_one_another() -> None:
    seen = set()
    for seed in range(5):
        batches = EpochBatches(LENGTHS, seed=seed, batch_size=16)
        for epoch in range(5):
            batches.set_epoch(epoch)
            seen.add(tuple(next(iter(batches))))
    assert len(seen) == 25


def test_the_order_depends_on_nothing_but_seed_and_epoch() -> None:
    def first(**arguments: Any) -> list[list[int]]:
        batches = EpochBatches(LENGTHS, **{"seed": 7, "batch_tokens": 4096, "grouping": "length_grouped", **arguments})
        batches.set_epoch(3)
        return list(batches)

    expected = first()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    state = torch.random.get_rng_state()
    assert first() == expected
    assert torch.equal(torch.random.get_rng_state(), state)  # and leaves the trainer's random numbers alone
    assert first(seed=8) != expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prepared", [False, True], ids=["torch's loader", "accelerate's loader"])
def test_an_interrupted_epoch_goes_on_with_the_batches_it_lacks(kind: str, prepared: bool) -> None:
    def loader() -> Any:
        made = DataLoader(
            range(len(LENGTHS)), batch_sampler=EpochBatches(LENGTHS, seed=7, **KINDS[kind]), collate_fn=list
        )
        return Accelerator(cpu=True).prepare_data_loader(made) if prepared else made

    whole, resumed = loader(), skip_first_batches(loader(), 5)
    for made in (
        whole,
        resumed,
    ):  # as transformers.Trainer does: it skips first and tells the epoch then, to the sampler inside
        if hasattr(made, "set_epoch"):
            made.set_epoch(2)
        getattr(made.batch_sampler, "batch_sampler", made.batch_sampler).set_epoch(2)
    assert list(resumed) == list(whole)[5:]
    assert len(resumed) == len(whole) - 5


def test_grouping_by_length_saves_padding_and_leaves_a_random_order() -> None:
    share = {}
    for grouping in ("random", "length_grouped"):
        batches = EpochBatches(LENGTHS * 4, seed=1, batch_size=16, grouping=grouping)
        share[grouping] = _padding_share([[k % len(LENGTHS) for k in batch] for batch in batches])
    assert share["length_grouped"] < 0.08 < 0.4 < share["random"]
    batches = EpochBatches(LENGTHS, seed=1, batch_size=16, grouping="length_grouped")
    longest = [max(LENGTHS[k] for k in batch) for batch in batches]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.35


def test_the_budget_of_padded_batches_counts_padding() -> None:
    lengths = [100, 10, 10, 10, 10, 10]
    for padded, largest in ((True, 5), (False, 6)):
        sizes = set()
        for epoch in range(50):
            batches = EpochBatches(lengths, seed=0, batch_tokens=150, padded=padded)
            batches.set_epoch(epoch)
            for batch in batches:
                sizes.add(len(batch))
                assert not padded or 0 not in batch or len(batch) == 1
        assert max(sizes) == largest


def test_an_epoch_that_needs_more_batches_than_the_first_finds_room_for_the_examples() -> None:
    # Two long and many short examples: whether a batch closes early depends on the order.
    lengths = [60, 60, 60, 60, *[30] * 8, *[10] * 12]
    needed = {len(EpochBatches(lengths, seed=seed, batch_tokens=100, padded=False)) for seed in range(40)}
    assert len(needed) > 1
    for seed in range(40):
        batches = EpochBatches(lengths, seed=seed, batch_tokens=100, padded=False)
        for epoch in range(20):
            batches.set_epoch(epoch)
            chosen = list(batches)
            assert len(chosen) == len(batches)
            examples = list(itertools.chain(*chosen))
            assert sorted(examples) == list(range(len(lengths)))
            assert all(0 < sum(lengths[k] for k in batch) <= 100 for batch in chosen)


def test_a_budget_below_the_longest_example_is_an_error_with_two_ways_out() -> None:
    with pytest.raises(InputError, match=r"batch_tokens: 50, but example 1 has 80 tokens; fix: .* 80 .* max_length 50"):
        EpochBatches([10, 80, 20], seed=0, batch_tokens=50)


def test_more_processes_than_batches_is_an_error() -> None:
    with pytest.raises(InputError, match="batches: 2 an epoch for 4 processes; fix: "):
        EpochBatches([10] * 8, seed=0, batch_size=4, world=4)
    with pytest.raises(InputError, match="batches: 0 an epoch for 1 processes"):
        EpochBatches([], seed=0, batch_size=4)


@pytest.mark.parametrize("sizes", [{}, {"batch_size": 4, "batch_tokens": 100}])
def test_a_size_or_a_budget_is_given_and_not_both(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="either batch_size or batch_tokens"):
        EpochBatches([10], seed=0, **sizes)
