"""Work on a [tokens, vocabulary] tensor a few rows at a time, so that what is made on the way stays small.

On a CPU it then stays in the cache: a fresh tensor of hundreds of megabytes costs more in page faults than in arithmetic. On other
devices the parts are large enough to keep them busy, and the temporaries of a loss no longer grow with its tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

_ELEMENTS = {"cpu": 2**18}
_ELEMENTS_ELSEWHERE = 2**26


def row_blocks(matrix: Tensor) -> Iterator[slice]:
    """Slices that cover the rows of a matrix, in order."""
    elements = _ELEMENTS.get(matrix.device.type, _ELEMENTS_ELSEWHERE)
    rows = max(1, elements // max(1, matrix.shape[-1]))
    for first in range(0, len(matrix), rows):
        yield slice(first, first + rows)
