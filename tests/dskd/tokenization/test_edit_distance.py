"""The nearest byte string, against every distance computed cell by cell."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from dskd.tokenization.edit_distance import nearest


@cache
def _edits(a: bytes, b: bytes) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j - 1] + (x != y), above[j] + 1, row[-1] + 1))
    return row[-1]


def _random_strings(seed: int, count: int, longest: int, letters: int = 3) -> list[bytes]:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, longest + 1, count)
    return [bytes(random.integers(97, 97 + letters, length).tolist()) for length in lengths]


@pytest.mark.parametrize("most_edits", [0, 1, 2])
@pytest.mark.parametrize("longest", [7, 12])
def test_the_nearest_and_its_distance_are_those_of_comparing_all(most_edits: int, longest: int) -> None:
    strings, others = _random_strings(1, 200, longest), _random_strings(2, 60, longest, letters=4)
    found, edits = nearest(strings, others, most_edits)
    near = 0
    for k, string in enumerate(strings):
        distances = [_edits(string, other) for other in others]
        least = min(distances)
        if least <= min(most_edits, len(string) // 2):
            near += 1
            assert (found[k], edits[k]) == (distances.index(least), least)
        else:
            assert (found[k], edits[k]) == (-1, -1)
    assert 0 < near < len(strings)


def test_blocks_of_candidates_leave_none_out(monkeypatch: pytest.MonkeyPatch) -> None:
    strings, others = _random_strings(3, 150, 9), _random_strings(4, 120, 9)
    expected = nearest(strings, others, 2)
    monkeypatch.setattr("dskd.tokenization.edit_distance._CANDIDATES", 50)
    monkeypatch.setattr("dskd.tokenization.edit_distance._REMAINDER_BYTES", 100)
    np.testing.assert_array_equal(nearest(strings, others, 2), expected)


def test_very_long_strings_are_near_to_their_equals_alone() -> None:
    found, edits = nearest([b"a" * 129, b"a" * 128], [b"a" * 127, b"a" * 129], 2)
    assert found.tolist() == [1, 0]
    assert edits.tolist() == [0, 1]


def test_nothing_is_near_to_nothing() -> None:
    for strings, others in (([], [b"a"]), ([b"a"], []), ([], [])):
        found, edits = nearest(strings, others, 2)
        assert found.tolist() == edits.tolist() == [-1] * len(strings)
