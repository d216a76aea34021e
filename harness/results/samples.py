"""The samples of an evaluation: a line of `samples.jsonl` for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_objects
from harness.runs.store import SAMPLES


def read_samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The samples of an evaluation's folder by item id, in their order. InputError if they are missing or damaged."""
    path = folder / SAMPLES
    if not path.is_file():
        raise InputError(f"{path}: is missing; fix: evaluate again, because comparisons need the samples")
    samples: dict[str, list[dict[str, Any]]] = {}
    for number, row in read_objects(path, half_pairs=True):
        if not isinstance(row.get("id"), str) or not isinstance(row.get("scores"), dict):
            raise InputError(f'{path}:{number}: no "id" or no "scores"; fix: evaluate again')
        samples.setdefault(row["id"], []).append(row)
    for identifier, rows in samples.items():
        if len({row.get("prompt") for row in rows}) > 1:
            raise InputError(f"{path}: samples of {identifier!r} have different prompts; fix: evaluate again")
    return samples
