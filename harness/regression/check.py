"""A run against a baseline: is it worse? Three layers, and for each cell one of three verdicts, or none where something is missing.

1. Structure: task, prompts, metric and samples are the same, else `regress`. A cell, seed, item or score that is missing makes a
   cell `incomplete`, unless what is there is worse.
2. Scores: the paired test on the shared items. `regress` where p < 0.01 for "worse" (one-sided, adjusted by Holm over the cells
   whose scores changed) and the drop is more than a margin that matters in practice. A test alone would fail large sets for drops
   that nobody cares about, a margin alone small sets for noise.
3. Outputs: each sample's output has the digest of the baseline's, or is listed. Where settings (the identity, with our versions of
   the code), packages, processor and threads are those of the baseline and the engine repeats itself, nothing but the code can have
   changed it, unannounced: `regress`. Elsewhere settings or rounding do it, and the scores decide.

`pass`: no worse than the baseline, and a drop beyond the margin is excluded. `inconclusive`: anything between, with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from dskd.errors import InputError
from harness.regression.baseline import TEACHER_SEED, Baseline, CellScores, Item, Scores, SeedScores
from harness.results.item_scores import ItemScores
from harness.runs.identity import differences
from harness.statistics.paired_tests import Comparison, compare, holm

ALPHA = 0.01
# In points: what a drop has to exceed to matter.
MARGINS = {"binary": 2.0, "continuous": 1.0}
# From best to worst; `incomplete` says that there is none.
Verdict = Literal["pass", "inconclusive", "incomplete", "regress"]
Goldens = Literal["auto", "strict", "warn"]
# Engines whose answers depend on nothing but the model and the prompts: vLLM batches by what has arrived.
_REPRODUCIBLE_ENGINES = ("transformers",)
_LISTED = 5


@dataclass(frozen=True)
class Cell:
    """One cell's verdict with its reasons. Scores and the difference (run − baseline) are of the shared items, in points.

    `p_value` is the chance of such a drop or a larger one where there is none, adjusted by Holm. `changed`: `item` or `seed/item`.
    """

    name: str
    verdict: Verdict
    reasons: list[str]
    metric: str
    items: int
    seeds: int
    margin: float
    baseline: float | None = None
    run: float | None = None
    difference: float | None = None
    ci95: tuple[float, float] | None = None
    p_value: float | None = None
    changed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All cells, and what belongs to none: `notes` are no reason to fail."""

    cells: list[Cell]
    notes: list[str]

    @property
    def verdict(self) -> Verdict:
        """The worst of the cells."""
        found = {cell.verdict for cell in self.cells}
        return next((verdict for verdict in reversed(get_args(Verdict)) if verdict in found), "pass")

    def as_dict(self) -> dict[str, Any]:
        """What `harness check --json` prints."""
        return {"schema_version": 1, "verdict": self.verdict, **asdict(self)}


def check(
    baseline: Baseline, scores: Scores, *, margins: Mapping[str, float] | None = None, goldens: Goldens = "auto"
) -> Report:
    """The verdicts for every cell of the baseline.

    `margins`: points by a metric's name, or by its kind (binary, continuous). `goldens`: whether changed outputs alone are
    `regress`: `auto` where nothing but the code can have changed them, `strict` anywhere, `warn` nowhere.
    """
    margins = {**MARGINS, **(margins or {})}
    known = {key for cell in baseline.cells.values() for key in (cell.metric, cell.kind)} | MARGINS.keys()
    if unknown := sorted(set(margins) - known):
        raise InputError(
            f"--margin {unknown[0]}: no such metric in the baseline; fix: one of {', '.join(sorted(known))}"
        )
    compared = {
        name: found
        for name, cell in baseline.cells.items()
        if name in scores.cells and (found := _compare(cell, scores.cells[name])) is not None
    }
    # Cells that agree on every item cannot come out worse, so they are none of the tests to adjust for (Tarone 1990).
    tested = [name for name in compared if not _agree(baseline.cells[name], scores.cells[name])]
    adjusted = dict.fromkeys(compared, 1.0) | dict(
        zip(tested, holm([compared[name].p_less for name in tested]), strict=True)
    )
    cells = []
    for name, old in baseline.cells.items():
        margin = margins.get(old.metric, margins[old.kind])
        judged = Cell(name, "pass", [], old.metric, _count(old), len(old.seeds), margin)
        new = scores.cells.get(name)
        if new is None:
            reason = next(
                (text for text in scores.problems if text.startswith(f"{name}: ")), "the run does not have it"
            )
            cells.append(replace(judged, verdict="incomplete", reasons=[reason.removeprefix(f"{name}: ")]))
            continue
        judged = _with_scores(judged, old, new, compared.get(name), adjusted.get(name))
        cells.append(_with_outputs(judged, old, new, baseline.environments, scores.environments, goldens))
    return Report(cells, list(_notes(baseline, scores)))


def _count(cell: CellScores) -> int:
    return len({name for seed in cell.seeds.values() for name in seed.items})


# --- structure and scores -------------------------------------------------------------------------------------------------------


def _with_scores(
    judged: Cell, old: CellScores, new: CellScores, found: Comparison | None, p_value: float | None
) -> Cell:
    otherwise, missing = list(_otherwise(old, new)), list(_missing(old, new))
    worse, unclear = [], []
    if found is not None and p_value is not None:
        a, b = _item_scores(old, new)
        judged = replace(
            judged,
            baseline=round(float(b.values.mean()), 4),
            run=round(float(a.values.mean()), 4),
            difference=round(found.difference, 4),
            ci95=(round(found.ci95[0], 4), round(found.ci95[1], 4)),
            p_value=p_value,
        )
        drop = f"{found.difference:+.2f} points"
        if p_value < ALPHA and found.difference < -judged.margin:
            worse.append(f"worse: {drop}, more than the margin of {judged.margin:g}, p = {p_value:.2g}")
        elif not np.array_equal(a.values, b.values):
            if found.difference < 0:
                unclear.append(f"{drop}, which is within noise or the margin of {judged.margin:g} (p = {p_value:.2g})")
            elif found.ci95[0] < -judged.margin:
                unclear.append(f"{drop}, but {_count(old)} items do not exclude a drop of more than {judged.margin:g}")
    found_in: dict[Verdict, list[str]] = {
        "regress": [*otherwise, *worse],
        "incomplete": missing,
        "inconclusive": unclear,
    }
    verdict: Verdict = next((name for name, reasons in found_in.items() if reasons), "pass")
    return replace(judged, verdict=verdict, reasons=[reason for reasons in found_in.values() for reason in reasons])


def _otherwise(old: CellScores, new: CellScores) -> Iterator[str]:
    """What was asked otherwise, or more of it. The prompts have one hash, so they can be compared where the items are the same."""
    compared = {"task_version": "the task's version", "metric": "the metric"}
    if all(before.keys() == after.keys() for _, before, after in _shared_seeds(old, new)):
        compared["prompts"] = "the prompts' hash"
    for key, what in compared.items():
        if getattr(old, key) != getattr(new, key):
            yield f"{what} changed, {getattr(old, key)} -> {getattr(new, key)}"
    for where, before, after in _shared_seeds(old, new):
        if added := [name for name in after if name not in before]:
            yield f"{where}{len(added)} items that the baseline does not have ({_some(added)})"
        if other := [n for n in before if n in after and len(before[n].outputs) != len(after[n].outputs)]:
            yield f"{where}{len(other)} items with another number of samples ({_some(other)})"


def _missing(old: CellScores, new: CellScores) -> Iterator[str]:
    for seed in old.seeds:
        if seed not in new.seeds:
            yield f"seed {seed} is missing"
    for where, before, after in _shared_seeds(old, new):
        if missing := [name for name in before if name not in after]:
            yield f"{where}{len(missing)} of {len(before)} items missing ({_some(missing)})"
        shared = [name for name in before if name in after]
        if lost := [n for n in shared if before[n].score is not None and after[n].score is None]:
            yield f"{where}{len(lost)} items without a score, which the harness could not give ({_some(lost)})"


def _shared_seeds(old: CellScores, new: CellScores) -> Iterator[tuple[str, Mapping[str, Item], Mapping[str, Item]]]:
    """How to name each seed that both have, and the items of both."""
    for seed, before in old.seeds.items():
        if seed in new.seeds:
            yield "" if len(old.seeds) == 1 else f"seed {seed}: ", before.items, new.seeds[seed].items


def _item_scores(old: CellScores, new: CellScores) -> tuple[ItemScores, ItemScores]:
    """Run and baseline on the seeds and items that both have scored, higher being better; of no items where the metric changed."""
    seeds = [seed for seed in old.seeds if seed in new.seeds] if old.metric == new.metric else []
    both = [(old.seeds[seed].items, new.seeds[seed].items) for seed in seeds]
    names = [
        name
        for name in (both[0][0] if both else ())
        if all(name in side and side[name].score is not None for pair in both for side in pair)
    ]
    sign = 1.0 if old.higher_is_better else -1.0
    numbers = tuple(0 if seed == TEACHER_SEED else int(seed) for seed in seeds)

    def of(side: int) -> ItemScores:
        values = [[sign * float(pair[side][name].score or 0.0) for name in names] for pair in both]
        array = np.array(values, dtype=np.float64).reshape(len(both), len(names))
        return ItemScores(tuple(names), numbers, array, fixed=seeds == [TEACHER_SEED])

    return of(1), of(0)


def _agree(old: CellScores, new: CellScores) -> bool:
    run, baseline = _item_scores(old, new)
    return np.array_equal(run.values, baseline.values)


def _compare(old: CellScores, new: CellScores) -> Comparison | None:
    run, baseline = _item_scores(old, new)
    return compare(run, baseline, old.kind) if len(run.ids) > 1 else None


# --- outputs --------------------------------------------------------------------------------------------------------------------


def _with_outputs(
    judged: Cell,
    old: CellScores,
    new: CellScores,
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    goldens: Goldens,
) -> Cell:
    shared = [seed for seed in old.seeds if seed in new.seeds]
    changed = [
        name if len(old.seeds) == 1 else f"{seed}/{name}"
        for seed in shared
        for name, item in old.seeds[seed].items.items()
        if name in new.seeds[seed].items and item.outputs != new.seeds[seed].items[name].outputs
    ]
    if not changed:
        return judged
    told = f"{len(changed)} of {sum(len(old.seeds[seed].items) for seed in shared)} outputs changed ({_some(changed)})"
    other = {line for seed in shared for line in _other_origin(old.seeds[seed], new.seeds[seed], before, after)}
    if other:
        told += f"; not made as the baseline's were ({_some(sorted(other))}), so the scores decide"
    else:
        told += "; settings, versions and processor are the baseline's, so the code does something else"
    verdict = judged.verdict
    if goldens == "strict" or (goldens == "auto" and not other):
        verdict = "regress"
    elif not other and verdict == "pass":
        verdict = "inconclusive"
    return replace(judged, verdict=verdict, reasons=[*judged.reasons, told], changed=changed)


def _other_origin(
    old: SeedScores, new: SeedScores, before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Why outputs may differ though the code does the same; nothing where they may not."""
    environment = after[new.environment]
    told = differences(before[old.environment], environment)
    if old.identity != new.identity:
        told.insert(0, "other settings")
    if environment["device"] != "cpu":
        told.append("a GPU")
    if environment["engine"] not in _REPRODUCIBLE_ENGINES:
        told.append(f"engine {environment['engine']}")
    return told


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"


def _notes(baseline: Baseline, scores: Scores) -> Iterator[str]:
    if added := [name for name in scores.cells if name not in baseline.cells]:
        yield f"not in the baseline, and not checked: {_some(added)}; `harness baseline update` takes them in"
    for name, cell in scores.cells.items():
        old = baseline.cells.get(name)
        if old is not None and (seeds := [seed for seed in cell.seeds if seed not in old.seeds]):
            yield f"{name}: seeds {', '.join(seeds)} are not in the baseline, and not checked"
    yield from (text for text in scores.problems if text.split(": ")[0] not in baseline.cells)
