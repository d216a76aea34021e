"""For each of many byte strings, the one of many others that the fewest edits make of it, where few edits are enough.

Two strings at most k edits apart have a string in common that is left of either after deleting at most k bytes (symmetric
deletion, as in SymSpell): only those with a remainder in common, found by hashes, are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_CANDIDATES = 2**21  # pairs that are compared at a time
_REMAINDER_BYTES = 2**24  # that are hashed at a time
_LONGEST = 128  # bytes; there are thousands of ways to delete two of them


def nearest(strings: Sequence[bytes], others: Sequence[bytes], most_edits: int) -> tuple[np.ndarray, np.ndarray]:
    """(index of the nearest of the others, edits between the two), int64 [strings], -1 where none is near; ties go to the first.

    Near means at most `most_edits` edits of a byte, and at most half as many as the string has bytes; long strings have equals alone.
    """
    found = np.full(len(strings), -1, dtype=np.int64)
    edits = np.full(len(strings), -1, dtype=np.int64)
    left, right = _Strings(strings), _Strings(others)
    for most in range(most_edits + 1):
        few = (left.lengths >= 2 * most) & (left.lengths <= _LONGEST) if most else True
        wanted = ((found < 0) & few).nonzero()[0]
        best = np.full(len(strings), len(others), dtype=np.int64)
        for i, j in _candidates(left, wanted, right, most):
            near = _within(left, i, right, j, most)
            np.minimum.at(best, i[near], j[near])
        hits = (best < len(others)).nonzero()[0]
        found[hits], edits[hits] = best[hits], most  # fewer were not enough
    return found, edits


class _Strings:
    """Byte strings in one array: string k is bytes[starts[k] : starts[k] + lengths[k]]."""

    def __init__(self, strings: Sequence[bytes]) -> None:
        self.lengths = np.fromiter(map(len, strings), dtype=np.int64, count=len(strings))
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.bytes = np.frombuffer(b"".join(strings), dtype=np.uint8)

    def rows(self, indices: np.ndarray, width: int) -> np.ndarray:
        """uint8 [indices, width]: the first bytes of each; beyond its length anything."""
        return self.bytes.take(self.starts[indices, None] + np.arange(width), mode="clip")


def _remainders(strings: _Strings, indices: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(hash, index of the string) of what deleting at most so many bytes leaves of each string."""
    keys, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for length in np.unique(strings.lengths[indices]).tolist():
        same = indices[strings.lengths[indices] == length]
        for deleted in range(min(most, length) + 1):
            gone = np.array(list(combinations(range(length), deleted)), dtype=np.int64)  # [ways, deleted]
            stays = np.ones((len(gone), length), dtype=bool)
            stays[np.arange(len(gone))[:, None], gone] = False
            kept = stays.nonzero()[1].reshape(len(gone), length - deleted)
            step = max(1, _REMAINDER_BYTES // max(1, kept.size))
            for first in range(0, len(same), step):
                part = same[first : first + step]
                rows = strings.rows(part, length).astype(np.uint64) + np.uint64(1)
                key = np.zeros((len(part), len(kept)), dtype=np.uint64)
                for column in kept.T:
                    key = key * _MULTIPLIER + rows[:, column]
                keys.append(key.ravel())
                owners.append(part.repeat(len(kept)))
    return np.concatenate(keys), np.concatenate(owners)


def _candidates(
    left: _Strings, wanted: np.ndarray, right: _Strings, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices on the left, on the right) of strings that have a remainder in common, each pair at least once."""
    within = (right.lengths <= _LONGEST + most) if most else np.ones(len(right.lengths), dtype=bool)
    left_keys, left_owners = _remainders(left, wanted, most)
    right_keys, right_owners = _remainders(right, within.nonzero()[0], most)
    order = np.argsort(right_keys)
    right_keys, right_owners = right_keys[order], right_owners[order]
    order = np.argsort(left_keys)  # so that the look-ups walk through memory
    left_keys, left_owners = left_keys[order], left_owners[order]
    begins = right_keys.searchsorted(left_keys)
    counts = right_keys.searchsorted(left_keys, "right") - begins
    ends = np.cumsum(counts)
    firsts = ends.searchsorted(np.arange(0, counts.sum(), _CANDIDATES), "right").tolist()
    for first, last in pairwise([*firsts, len(counts)]):
        some = counts[first:last]
        places = np.arange(some.sum()) + (begins[first:last] - (np.cumsum(some) - some)).repeat(some)
        i, j = left_owners[first:last].repeat(some), right_owners[places]
        close = np.abs(left.lengths[i] - right.lengths[j]) <= most
        pairs = np.unique(i[close] * len(right.lengths) + j[close])
        yield pairs // len(right.lengths), pairs % len(right.lengths)


def _within(left: _Strings, i: np.ndarray, right: _Strings, j: np.ndarray, most: int) -> np.ndarray:
    """Whether at most so many edits lie between the strings, bool [pairs]; their lengths differ by no more."""
    result = np.zeros(len(i), dtype=bool)
    for length in np.unique(left.lengths[i]).tolist():
        same = (left.lengths[i] == length).nonzero()[0]
        a, b = left.rows(i[same], length), right.rows(j[same], length + most)
        # distances[k][d]: of the first k bytes of a and the first k + d - most of b; one that leaves the band is too far.
        far = np.full(len(same), most + 1, dtype=np.int8)
        band = [far if d < most else far * 0 + np.int8(d - most) for d in range(2 * most + 1)]
        for k in range(1, length + 1):
            row: list[np.ndarray] = []
            for d in range(2 * most + 1):
                column = k + d - most
                if column < 1:
                    row.append(far if column < 0 else np.full_like(far, min(k, most + 1)))
                    continue
                least = band[d] + (a[:, k - 1] != b[:, column - 1])
                if d < 2 * most:
                    least = np.minimum(least, band[d + 1] + 1)
                if d:
                    least = np.minimum(least, row[d - 1] + 1)
                row.append(np.minimum(least, far).astype(np.int8))
            band = row
        offset = right.lengths[j[same]] - length + most
        result[same] = np.stack(band)[offset, np.arange(len(same))] <= most
    return result
