"""Memory for the large tensors of a chunk of tokens that later ones use again (dskd/losses/chunked.py).

On a CPU the first touch of fresh memory costs more than the arithmetic on it, and the C library hands large blocks back at once.
Other devices keep freed memory themselves, so there nothing is held and a tensor is freed as soon as nobody needs it.
"""

from __future__ import annotations

import math
import weakref
from contextvars import ContextVar
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

_BYTES = {torch.float64: np.float64, torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: np.int16}


class _Lent(np.ndarray):
    """Memory in the hands of a tensor: torch lets go of it with the last tensor that shares it."""


class BufferPool:
    """Inside `with pool:`, `empty_from_pool` takes memory from here. It is free again once no tensor shares it."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def __enter__(self) -> BufferPool:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)

    def take(self, shape: torch.Size | tuple[int, int], like: Tensor) -> Tensor:
        size = math.prod(shape) * like.element_size()
        fitting = [i for i, memory in enumerate(self._free) if memory.nbytes >= size]
        smallest = min(fitting, key=lambda i: self._free[i].nbytes, default=None)
        memory = np.empty(size, np.uint8) if smallest is None else self._free.pop(smallest)
        lent = memory[:size].view(_BYTES[like.dtype]).reshape(shape).view(_Lent)
        weakref.finalize(lent, self._free.append, memory).atexit = False
        tensor = torch.from_numpy(lent)
        # A view would share its memory with another tensor, and gradients would no longer be added up in place.
        return tensor if tensor.dtype == like.dtype else tensor.view(like.dtype)


_current: ContextVar[BufferPool | None] = ContextVar("pool", default=None)


def empty_from_pool(shape: torch.Size | tuple[int, int], like: Tensor) -> Tensor:
    """A matrix of the dtype and device of `like`, not initialised."""
    pool = _current.get()
    if pool is None or like.device.type != "cpu" or like.dtype not in _BYTES:
        return like.new_empty(shape)
    return pool.take(shape, like)
