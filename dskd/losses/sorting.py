"""Order in the rows of a matrix as wide as a vocabulary: by numpy on a CPU, where torch.sort and argmax take several times as long."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LEAST_WIDTH = 1024  # of narrower rows the calls cost more than the sorting
_INDEX_BITS = np.uint64(32)
_INDEX_MASK = np.uint64(2**32 - 1)
_SIGN_BIT = np.uint32(2**31)


def sort(values: Tensor, *, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Each row in order, and the columns that its numbers come from.

    Equal numbers stay in the order of their columns (a stable sort), on every device. The gradient reaches `values`.

    Args:
        values: [rows, columns].
        descending: The largest first.

    Returns:
        (the numbers in order [rows, columns], their columns, int64 [rows, columns]).
    """
    ranked, order = _Sort.apply(values, descending)
    return ranked, order


def sorted_values(values: Tensor, *, descending: bool = False) -> Tensor:
    """Each row [rows, columns] in order, without gradient: cheaper than `sort` where nobody asks for the columns."""
    values = values.detach()
    if not _for_numpy(values):
        return values.sort(dim=-1, descending=descending).values
    given, ranked = values.numpy(), np.empty(values.shape, np.float32)

    def some(rows: range) -> None:
        for row in rows:
            target = ranked[row]
            target[:] = given[row]
            target.sort()
            if descending:
                target[:] = target[::-1].copy()

    _by_threads(some, len(given))
    return torch.from_numpy(ranked)


def argmax_of_rows(values: Tensor) -> Tensor:
    """The column of the largest number of each row [rows, columns], the first of several, int64 [rows]."""
    values = values.detach()
    if not _for_numpy(values):
        return values.argmax(-1)
    return torch.from_numpy(values.numpy().argmax(-1))


class _Sort(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, descending: bool) -> tuple[Tensor, Tensor]:
        if _for_numpy(values):
            ranked, order = _sorted_by_numpy(values.detach(), descending)
        else:
            ranked, order = torch.sort(values, dim=-1, descending=descending, stable=True)
        ctx.save_for_backward(order)
        ctx.mark_non_differentiable(order)
        return ranked, order

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return torch.empty_like(upstream[0]).scatter_(-1, order, upstream[0]), None


def _for_numpy(values: Tensor) -> bool:
    return values.device.type == "cpu" and values.dtype == torch.float32 and values.shape[-1] >= _LEAST_WIDTH


def _sorted_by_numpy(values: Tensor, descending: bool) -> tuple[Tensor, Tensor]:
    """As `sort`: number and column make one integer, and integers are sorted at once, several at a time.

    The bits of a float32, with all of them turned over if it is negative and else the sign alone, are in the order of the numbers.
    """
    rows, columns = values.shape
    given = values.numpy()
    ranked, order = np.empty((rows, columns), np.float32), np.empty((rows, columns), np.int64)
    index = np.arange(columns, dtype=np.uint64)

    def some(part: range) -> None:
        key, turned = np.empty(columns, np.uint64), np.empty(columns, np.uint32)
        for row in part:
            bits = ranked[row].view(np.uint32)
            np.add(given[row], np.float32(0.0), out=ranked[row])  # no zero is negative
            np.right_shift(bits.view(np.int32), 31, out=turned.view(np.int32))
            turned |= _SIGN_BIT
            bits ^= turned
            if descending:
                np.invert(bits, out=bits)
            key[:] = bits
            key <<= _INDEX_BITS
            key |= index
            key.sort()
            np.bitwise_and(key, _INDEX_MASK, out=order[row].view(np.uint64))
            key >>= _INDEX_BITS
            bits[:] = key
            if descending:
                np.invert(bits, out=bits)
            # The sign bit is set where the number was positive.
            np.right_shift(bits.view(np.int32), 31, out=turned.view(np.int32))
            np.invert(turned, out=turned)
            turned |= _SIGN_BIT
            bits ^= turned

    _by_threads(some, rows)
    return torch.from_numpy(ranked), torch.from_numpy(order)


def _by_threads(some: Callable[[range], None], rows: int) -> None:
    """Call `some` with all rows, on as many threads as torch uses: numpy's sort uses one, and lets others run meanwhile."""
    threads = min(torch.get_num_threads(), rows)
    if threads <= 1:
        some(range(rows))
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, (range(first, rows, threads) for first in range(threads))))
