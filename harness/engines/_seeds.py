"""The random numbers of each answer, from its own seed and nothing else.

So an answer is the same in whatever batch, at whatever place and in whatever order it is drawn, but for what the arithmetic of a
model does in batches of another shape (docs/protocols.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def sample_seed(seed: int, item: str, index: int) -> int:
    """The seed, below 2^63, of the answer `index` of a generation seed to an item of a task."""
    digest = hashlib.sha256(json.dumps([seed, item, index]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def uniform_numbers(seeds: Sequence[int], count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each seed, [seeds, count]: a counter-based generator (Philox) under the seed as its key."""
    import numpy as np

    return np.stack([np.random.Generator(np.random.Philox(key=seed)).random(count) for seed in seeds])
