"""The scores of single items, which every comparison rests on: two means over the same items say more than two means alone.

`samples.jsonl` of an evaluation has a line a sample; here each item has one value a seed, the mean over its samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dskd.errors import InputError
from dskd.io import read_objects
from harness.runs.records import Record
from harness.runs.store import SAMPLES

Kind = Literal["binary", "continuous"]
# Points of 0..100. Rounded where they are read, so that a table is the same from samples and from what is committed of them.
DECIMALS = 4
_PROMPT_DIGITS = 12


@dataclass(frozen=True)
class Items:
    """One evaluation: for each item its id, the hash of its prompt ("" where samples have none) and a value a metric.

    Values are the means over an item's samples, None where the harness could score none of them.
    """

    ids: tuple[str, ...]
    prompts: tuple[str, ...]
    scores: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, eq=False)
class ItemScores:
    """One metric of a cell with all its seeds: values [seeds, items] on 0..100, NaN where an item has no score.

    `prompts` are hashes, one an item, or empty where nothing is known of them. `fixed` models have no training seed, as a teacher
    that was given: their one row is all there is of them.
    """

    ids: tuple[str, ...]
    seeds: tuple[int, ...]
    values: np.ndarray
    prompts: tuple[str, ...] = ()
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.seeds), len(self.ids)):
            raise ValueError(f"values of shape {self.values.shape}: expected [{len(self.seeds)}, {len(self.ids)}]")
        if self.prompts and len(self.prompts) != len(self.ids):
            raise ValueError(f"{len(self.prompts)} prompts for {len(self.ids)} items")
        if len(set(self.ids)) < len(self.ids):
            raise ValueError("an id occurs twice")

    @property
    def kind(self) -> Kind:
        """Binary where every value is 0 or 100; the mean over several samples is rarely that."""
        known = self.values[~np.isnan(self.values)]
        return "binary" if np.isin(known, (0.0, 100.0)).all() else "continuous"


def read_items(folder: Path) -> Items:
    """The items of an evaluation's folder, in the order in which they stand in its samples.

    InputError for a file that is not there or broken, and for samples of one item with different prompts.
    """
    path = folder / SAMPLES
    if not path.is_file():
        raise InputError(f"{path}: is missing; fix: evaluate again, comparisons need the samples")
    found: dict[str, list[dict[str, Any]]] = {}
    for number, row in read_objects(path, half_pairs=True):
        if not isinstance(row.get("id"), str) or not isinstance(row.get("scores"), dict):
            raise InputError(f'{path}:{number}: no "id" or no "scores"; fix: evaluate again')
        found.setdefault(row["id"], []).append(row)
    prompts = []
    for identifier, samples in found.items():
        texts = {sample.get("prompt") for sample in samples}
        if len(texts) > 1:
            raise InputError(f"{path}: samples of {identifier!r} have different prompts; fix: evaluate again")
        prompts.append(_hash(texts.pop()))
    names = list(dict.fromkeys(name for samples in found.values() for name in samples[0]["scores"]))
    scores = {name: tuple(_mean(samples, name, path) for samples in found.values()) for name in names}
    return Items(tuple(found), tuple(prompts), scores)


def read_item_scores(results: Sequence[tuple[Record, Path]], metric: str) -> ItemScores:
    """One metric of one cell, whose evaluations are given as a record and its folder for each seed.

    InputError where they do not fit together.
    """
    return stack([(record, read_items(folder)) for record, folder in results], metric)


def stack(results: Sequence[tuple[Record, Items]], metric: str) -> ItemScores:
    """Put the seeds of one cell above each other, in the order of the seeds.

    InputError for seeds with different items or prompts, a seed twice, and a metric that samples do not have.
    """
    if not results:
        raise ValueError("no results")
    ordered = sorted(results, key=lambda result: result[0].cell.seed or 0)
    first = ordered[0][1]
    rows = []
    for record, items in ordered:
        where = f"{record.cell.method}, seed {record.cell.seed}, {record.cell.column}"
        if metric not in items.scores:
            raise InputError(f"{where}: its samples have no {metric!r}; fix: one of {', '.join(items.scores)}")
        place = {identifier: number for number, identifier in enumerate(items.ids)}
        if place.keys() != set(first.ids):
            differ = sorted(place.keys() ^ set(first.ids))
            raise InputError(
                f"{where}: not the items of the other seeds ({len(differ)} differ, as {differ[0]!r}); fix: evaluate all seeds alike"
            )
        order = [place[identifier] for identifier in first.ids]
        if tuple(items.prompts[number] for number in order) != first.prompts:
            raise InputError(f"{where}: not the prompts of the other seeds; fix: evaluate all seeds alike")
        rows.append([items.scores[metric][number] for number in order])
    seeds = tuple(record.cell.seed or 0 for record, _ in ordered)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{ordered[0][0].cell.method}, {ordered[0][0].cell.column}: a seed occurs twice: {seeds}")
    fixed = ordered[0][0].cell.seed is None
    known = () if set(first.prompts) <= {""} else first.prompts
    return ItemScores(first.ids, seeds, np.array(rows, dtype=np.float64), known, fixed)


def _mean(samples: Sequence[Mapping[str, Any]], name: str, path: Path) -> float | None:
    try:
        values = [float(sample["scores"][name]) for sample in samples if sample["scores"][name] is not None]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: {samples[0]['id']!r} has no number as {name!r}; fix: evaluate again") from None
    return round(sum(values) / len(values), DECIMALS) if values else None


def _hash(prompt: Any) -> str:
    if not isinstance(prompt, str):
        return ""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:_PROMPT_DIGITS]
