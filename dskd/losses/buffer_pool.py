"""Memory for large tensors of one chunk of tokens that the next chunk uses again (dskd/losses/chunked.py).

On a CPU the first touch of fresh memory costs more than the arithmetic on it, and the C library hands large blocks back at once.
Other devices keep freed memory themselves, so there nothing is held and a tensor is freed as soon as nobody needs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextvars import ContextVar
from types import TracebackType

import torch
from torch import Tensor


class BufferPool:
    """Inside `with pool:`, `empty` takes its memory from here; `give_back` ends the life of all that was taken."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self._taken: list[Tensor] = []

    def __enter__(self) -> BufferPool:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)

    def take(self, shape: torch.Size | tuple[int, int], like: Tensor) -> Tensor:
        size = math.prod(shape)
        fitting = (i for i, memory in enumerate(self._free) if memory.dtype == like.dtype and memory.numel() >= size)
        index = next(fitting, None)
        memory = like.new_empty(size) if index is None else self._free.pop(index)
        self._taken.append(memory)
        return memory[:size].view(shape)

    def give_back(self, kept: Iterable[Tensor]) -> None:
        """What shares memory with a kept tensor is no longer ours."""
        pointers = {tensor.untyped_storage().data_ptr() for tensor in kept}
        self._free += [memory for memory in self._taken if memory.untyped_storage().data_ptr() not in pointers]
        self._taken = []


_current: ContextVar[BufferPool | None] = ContextVar("pool", default=None)


def empty_from_pool(shape: torch.Size | tuple[int, int], like: Tensor) -> Tensor:
    """A matrix of the dtype and device of `like`, not initialised."""
    pool = _current.get()
    if pool is None or like.device.type != "cpu":
        return like.new_empty(shape)
    return pool.take(shape, like)
