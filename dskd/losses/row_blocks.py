"""Work on a [tokens, vocabulary] tensor a few rows at a time: on a CPU in its cache, elsewhere in blocks that keep a device busy."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

_ELEMENTS = {"cpu": 2**16}
_ELEMENTS_ELSEWHERE = 2**26


def row_blocks(matrix: Tensor) -> Iterator[slice]:
    """Slices that cover the rows of a matrix, in order."""
    elements = _ELEMENTS.get(matrix.device.type, _ELEMENTS_ELSEWHERE)
    rows = max(1, elements // max(1, matrix.shape[-1]))
    for first in range(0, len(matrix), rows):
        yield slice(first, first + rows)
