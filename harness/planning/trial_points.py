"""The settings of trials: the default first, then points of a scrambled Sobol sequence, the same on every machine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dskd.io import write_atomic
from dskd.methods.space import Space
from harness.runs.hash_cache import cache_folder

_FIRST_POINTS = 64  # the sequence is balanced over powers of two
_MOST_POINTS = 4096


def settings_of_trials(space: Space, defaults: Mapping[str, Any], trials: int, seed: int) -> list[dict[str, Any]]:
    """What each trial changes of the default.

    A trial of a larger budget begins with those of a smaller one. No two are the same: a point that is one of the earlier settings is
    passed over, so a space of few values may give fewer trials.

    Args:
        space: What is tuned.
        defaults: The values that these options have without tuning.
        trials: How many, at most.
        seed: Of the scrambling.

    Returns:
        {option: value} of each; of the first nothing, which is the default.
    """
    found: list[dict[str, Any]] = [{}]
    seen = {json.dumps({name: defaults[name] for name in sorted(space)}, default=str)}
    names = sorted(space)
    for point in _points(len(names), seed) if names and trials > 1 else ():
        settings = {
            name: space[name].value(position, defaults[name]) for name, position in zip(names, point, strict=True)
        }
        key = json.dumps(settings, default=str)
        if key not in seen:
            seen.add(key)
            found.append(settings)
        if len(found) == trials:
            break
    return found


def _points(dimensions: int, seed: int) -> Iterator[list[float]]:
    number = _FIRST_POINTS
    given = 0
    while number <= _MOST_POINTS:
        points = sobol(dimensions, number, seed)
        yield from points[given:]
        given, number = number, 2 * number


def sobol(dimensions: int, number: int, seed: int) -> list[list[float]]:
    """The first points of a scrambled Sobol sequence.

    They are remembered: importing scipy takes a second, and a finished run must not.

    Args:
        dimensions: Coordinates of a point.
        number: How many points, a power of two.
        seed: Of the scrambling.
    """
    folder = cache_folder()
    path = None if folder is None else folder / "points" / f"sobol-{dimensions}-{number}-{seed}.json"
    known = None if path is None else _read(path, dimensions, number)
    if known is not None:
        return known
    from scipy.stats import qmc

    points = qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2(int(math.log2(number))).tolist()
    if path is not None:
        with suppress(OSError):
            write_atomic(path, json.dumps(points) + "\n")
    return points


def _read(path: Path, dimensions: int, number: int) -> list[list[float]] | None:
    """Remembered points; None where there are none that can be read."""
    try:
        points = json.loads(path.read_bytes())
        whole = len(points) == number and all(len(point) == dimensions for point in points)
        inside = whole and all(0.0 <= position < 1.0 for point in points for position in point)
    except (OSError, ValueError, TypeError):
        return None
    return points if inside else None
