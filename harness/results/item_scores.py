"""Scores of single items. Comparisons use them, because paired items say more than two means.

`samples.jsonl` of an evaluation has one line per sample; here each item has one value per seed, the mean over its samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dskd.errors import InputError
from harness.results.samples import read_samples
from harness.runs.records import Record
from harness.runs.store import SAMPLES

Kind = Literal["binary", "continuous"]
# Of a score from 0 to 100. Scores are rounded when they are read, so a table from samples equals one from an export.
DECIMALS = 4
_PROMPT_DIGITS = 12


@dataclass(frozen=True)
class Items:
    """The items of one evaluation, with one value per item and metric: the mean over the item's samples."""

    ids: tuple[str, ...]
    prompts: tuple[str, ...]  # hashes, "" if the samples have no prompt
    scores: Mapping[str, tuple[float | None, ...]]  # None if no sample could be scored


@dataclass(frozen=True)
class Results:
    """The records and item scores of a run or of an export."""

    records: list[Record]
    items: Mapping[str, Items]  # by `record.cell.key`; of evaluations with samples
    problems: list[str]  # a message for each file that cannot be read


@dataclass(frozen=True, eq=False)
class ItemScores:
    """One metric of a model or method on one task, over all its seeds."""

    ids: tuple[str, ...]
    seeds: tuple[int, ...]
    values: np.ndarray  # [seeds, items], from 0 to 100; NaN if an item has no score
    prompts: tuple[str, ...] = ()  # hashes, or empty if they are not known
    fixed: bool = False  # a model without training seed, like a given teacher; it has one row

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.seeds), len(self.ids)):
            raise ValueError(f"values of shape {self.values.shape}: expected [{len(self.seeds)}, {len(self.ids)}]")
        if self.prompts and len(self.prompts) != len(self.ids):
            raise ValueError(f"{len(self.prompts)} prompts for {len(self.ids)} items")
        if len(set(self.ids)) < len(self.ids):
            raise ValueError("an id occurs twice")

    @property
    def kind(self) -> Kind:
        """Binary if every value is 0 or 100. Means over several samples rarely are."""
        scored = self.values[~np.isnan(self.values)]
        return "binary" if np.isin(scored, (0.0, 100.0)).all() else "continuous"


def common_kind(a: ItemScores, b: ItemScores) -> Kind:
    """The kind of a comparison: binary if both sides are."""
    return "binary" if a.kind == b.kind == "binary" else "continuous"


def read_items(folder: Path) -> Items:
    """The items of an evaluation's folder, in the order of its samples. InputError also for a score that is not a number."""
    samples = read_samples(folder)
    names = list(dict.fromkeys(name for rows in samples.values() for name in rows[0]["scores"]))
    scores = {name: tuple(_mean(rows, name, folder / SAMPLES) for rows in samples.values()) for name in names}
    return Items(tuple(samples), tuple(_hash(rows[0].get("prompt")) for rows in samples.values()), scores)


def stack(results: Sequence[tuple[Record, Items]], metric: str) -> ItemScores:
    """Combine the seeds of one cell into one array, in the order of the seeds. InputError if they do not fit together."""
    if not results:
        raise ValueError("no results")
    ordered = sorted(results, key=lambda result: result[0].cell.seed or 0)
    cell, first = ordered[0][0].cell, ordered[0][1]
    rows = []
    for record, items in ordered:
        where = f"{cell.method}, seed {record.cell.seed}, {cell.column}"
        if metric not in items.scores:
            raise InputError(f"{where}: its samples have no {metric!r}; fix: one of {', '.join(items.scores)}")
        place = {identifier: number for number, identifier in enumerate(items.ids)}
        if different := sorted(place.keys() ^ set(first.ids)):
            raise InputError(
                f"{where}: not the items of the other seeds ({len(different)} differ, as {different[0]!r}); "
                "fix: evaluate all seeds on the same items"
            )
        order = [place[identifier] for identifier in first.ids]
        if tuple(items.prompts[number] for number in order) != first.prompts:
            raise InputError(f"{where}: not the prompts of the other seeds; fix: evaluate all with the same prompts")
        rows.append([items.scores[metric][number] for number in order])
    seeds = tuple(record.cell.seed or 0 for record, _ in ordered)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{cell.method}, {cell.column}: a seed occurs twice: {seeds}; fix: give the folder of one run")
    prompts = () if set(first.prompts) <= {""} else first.prompts
    return ItemScores(first.ids, seeds, np.array(rows, dtype=np.float64), prompts, fixed=cell.seed is None)


def compact(score: float | None) -> float | int | None:
    """A score as files hold it: whole numbers without ".0"."""
    return int(score) if score is not None and score == int(score) else score


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
