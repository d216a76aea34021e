"""Checks whether a run is worse than a baseline, cell by cell, in three layers.

1. Structure: task, prompts, metric and number of samples are the same, otherwise `regress`. A missing cell, seed, item or score makes
   a cell `incomplete`, unless the rest is worse.
2. Scores: the paired test on the shared items. `regress` if p < 0.01 for "worse" (one-sided, Holm-corrected over the cells whose scores
   changed) and the mean fell by more than a margin. A test alone would fail large sets for drops that nobody cares about, and a margin
   alone would fail small sets for noise.
3. Outputs: changed outputs are listed. If settings (the identity, which contains the versions of our code), packages, processor and
   threads are those of the baseline and the engine is reproducible, only the code can have changed an output: `regress`. Otherwise
   settings or rounding can be the reason, and the scores decide.

`pass`: not worse than the baseline, and a drop beyond the margin is excluded. `inconclusive`: anything between, with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from dskd.errors import InputError
from harness.regression.baseline import TEACHER_SEED, Baseline, CellScores, RunScores, ScoredItem, SeedScores
from harness.results.item_scores import ItemScores
from harness.runs.identity import differences
from harness.statistics.paired_tests import PairedComparison, compare, holm_of

ALPHA = 0.01
# The drop, in points, that counts.
MARGINS = {"binary": 2.0, "continuous": 1.0}
# From best to worst.
Verdict = Literal["pass", "inconclusive", "incomplete", "regress"]
ExactOutputs = Literal["auto", "always", "never"]
# Engines whose outputs depend on the model and the prompts only. vLLM forms batches by arrival.
_REPRODUCIBLE_ENGINES = ("transformers",)
_LISTED = 5
_Environments = Mapping[str, Mapping[str, Any]]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts; `pass` of none."""
    found = set(verdicts)
    return next((verdict for verdict in reversed(get_args(Verdict)) if verdict in found), "pass")


@dataclass(frozen=True)
class CellVerdict:
    """The verdict on one cell, with its reasons. Means and differences are over the shared items."""

    name: str
    verdict: Verdict
    reasons: list[str]
    metric: str
    items: int
    seeds: int
    margin: float
    baseline: float | None = None
    run: float | None = None
    difference: float | None = None  # run − baseline in points
    ci95: tuple[float, float] | None = None
    p_value: float | None = None  # one-sided for "worse", Holm-corrected
    changed: list[str] = field(default_factory=list)  # items with changed outputs, as `item` or `seed/item`


@dataclass(frozen=True)
class CheckReport:
    """The verdicts of all cells, and notes, which are no reason to fail."""

    cells: list[CellVerdict]
    notes: list[str]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the cells."""
        return worst(cell.verdict for cell in self.cells)

    def as_dict(self) -> dict[str, Any]:
        """The document of `harness check --json`."""
        return {"schema_version": 1, "verdict": self.verdict, **asdict(self)}


def check_run(
    baseline: Baseline,
    scores: RunScores,
    *,
    margins: Mapping[str, float] | None = None,
    exact_outputs: ExactOutputs = "auto",
) -> CheckReport:
    """Check a run against a baseline. InputError if a margin names no metric of the baseline.

    Args:
        baseline: the baseline.
        scores: of the run.
        margins: points by the name of a metric, or by its kind (binary, continuous).
        exact_outputs: whether changed outputs alone are `regress`: `auto` if only the code can have changed them, `always` or `never`.
    """
    margins = {**MARGINS, **(margins or {})}
    names = {key for cell in baseline.cells.values() for key in (cell.metric, cell.kind)} | MARGINS.keys()
    if unknown := sorted(set(margins) - names):
        known = ", ".join(sorted(names))
        raise InputError(f"--margin {unknown[0]}: no such metric in the baseline; fix: use one of {known}")
    compared, tested = {}, []
    for name, cell in baseline.cells.items():
        if name in scores.cells:
            a, b = _item_scores(cell, scores.cells[name])
            if len(a.ids) > 1:
                compared[name] = compare(a, b, cell.kind)
                # Cells that agree on every item cannot be worse, so Holm's correction leaves them out (Tarone 1990).
                tested += [] if np.array_equal(a.values, b.values) else [name]
    adjusted = dict.fromkeys(compared, 1.0)
    adjusted |= zip(tested, holm_of([compared[name] for name in tested], less=True), strict=True)
    cells = []
    for name, old in baseline.cells.items():
        margin = margins.get(old.metric, margins[old.kind])
        judged = CellVerdict(name, "pass", [], old.metric, _count(old), len(old.seeds), margin)
        new = scores.cells.get(name)
        if new is None:
            problems = (text for text in scores.problems if text.startswith(f"{name}: "))
            reason = next(problems, "the run does not have it")
            cells.append(replace(judged, verdict="incomplete", reasons=[reason.removeprefix(f"{name}: ")]))
            continue
        judged = _with_scores(judged, old, new, compared.get(name), adjusted.get(name))
        cells.append(_with_outputs(judged, old, new, baseline.environments, scores.environments, exact_outputs))
    return CheckReport(cells, list(_notes(baseline, scores)))


def _count(cell: CellScores) -> int:
    return len({name for seed in cell.seeds.values() for name in seed.items})


# --- structure and scores -------------------------------------------------------------------------------------------------------


def _with_scores(
    judged: CellVerdict, old: CellScores, new: CellScores, comparison: PairedComparison | None, p_value: float | None
) -> CellVerdict:
    different, missing = list(_different(old, new)), list(_missing(old, new))
    worse, unclear = [], []
    if comparison is not None and p_value is not None:
        a, b = _item_scores(old, new)
        ci95 = (round(comparison.ci95[0], 4), round(comparison.ci95[1], 4))
        judged = replace(judged, difference=round(comparison.difference, 4), ci95=ci95, p_value=p_value)
        judged = replace(judged, baseline=round(float(b.values.mean()), 4), run=round(float(a.values.mean()), 4))
        drop = f"{comparison.difference:+.2f} points"
        if p_value < ALPHA and comparison.difference < -judged.margin:
            worse.append(f"worse: {drop}, more than the margin of {judged.margin:g}, p = {p_value:.2g}")
        elif not np.array_equal(a.values, b.values):
            if comparison.difference < 0:
                unclear.append(f"{drop}, which is within noise or the margin of {judged.margin:g} (p = {p_value:.2g})")
            elif comparison.ci95[0] < -judged.margin:
                unclear.append(f"{drop}, but {_count(old)} items do not exclude a drop of more than {judged.margin:g}")
    reasons_for: dict[Verdict, list[str]] = {"regress": [*different, *worse], "incomplete": missing}
    reasons_for["inconclusive"] = unclear
    verdict: Verdict = next((name for name, reasons in reasons_for.items() if reasons), "pass")
    return replace(judged, verdict=verdict, reasons=[reason for reasons in reasons_for.values() for reason in reasons])


def _different(old: CellScores, new: CellScores) -> Iterator[str]:
    """Changes of task, prompts or metric, and additions. All prompts have one hash, so they are compared if the items are the same."""
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


def _shared_seeds(
    old: CellScores, new: CellScores
) -> Iterator[tuple[str, Mapping[str, ScoredItem], Mapping[str, ScoredItem]]]:
    """For each seed that both have: its name in messages, and the items of both."""
    for seed, before in old.seeds.items():
        if seed in new.seeds:
            yield "" if len(old.seeds) == 1 else f"seed {seed}: ", before.items, new.seeds[seed].items


def _item_scores(old: CellScores, new: CellScores) -> tuple[ItemScores, ItemScores]:
    """Run and baseline on the seeds and items that both have scored, with higher as better. Without items if the metric changed."""
    seeds = [seed for seed in old.seeds if seed in new.seeds] if old.metric == new.metric else []
    both = [(old.seeds[seed].items, new.seeds[seed].items) for seed in seeds]
    sides = [side for pair in both for side in pair]
    names = (
        [name for name in sides[0] if all(name in side and side[name].score is not None for side in sides)]
        if sides
        else []
    )
    sign = 1.0 if old.higher_is_better else -1.0
    numbers = tuple(0 if seed == TEACHER_SEED else int(seed) for seed in seeds)

    def of(side: int) -> ItemScores:
        values = [[sign * float(pair[side][name].score or 0.0) for name in names] for pair in both]
        array = np.array(values, dtype=np.float64).reshape(len(both), len(names))
        return ItemScores(tuple(names), numbers, array, fixed=seeds == [TEACHER_SEED])

    return of(1), of(0)


# --- outputs --------------------------------------------------------------------------------------------------------------------


def _with_outputs(
    judged: CellVerdict,
    old: CellScores,
    new: CellScores,
    before: _Environments,
    after: _Environments,
    exact: ExactOutputs,
) -> CellVerdict:
    shared = [seed for seed in old.seeds if seed in new.seeds]
    changed = [
        name if len(old.seeds) == 1 else f"{seed}/{name}"
        for seed in shared
        for name, item in old.seeds[seed].items.items()
        if name in new.seeds[seed].items and item.outputs != new.seeds[seed].items[name].outputs
    ]
    if not changed:
        return judged
    total = sum(len(old.seeds[seed].items) for seed in shared)
    reason = f"{len(changed)} of {total} outputs changed ({_some(changed)})"
    other = {line for seed in shared for line in _other_origin(old.seeds[seed], new.seeds[seed], before, after)}
    if other:
        reason += f"; made under other conditions than the baseline ({_some(sorted(other))}), so the scores decide"
    else:
        reason += "; settings, versions and processor are those of the baseline, so the code behaves differently"
    verdict = judged.verdict
    if exact == "always" or (exact == "auto" and not other):
        verdict = "regress"
    elif not other and verdict == "pass":
        verdict = "inconclusive"
    return replace(judged, verdict=verdict, reasons=[*judged.reasons, reason], changed=changed)


def _other_origin(old: SeedScores, new: SeedScores, before: _Environments, after: _Environments) -> list[str]:
    """Reasons for other outputs with the same behaviour of the code; empty if there is none."""
    environment = after[new.environment]
    reasons = differences(before[old.environment], environment)
    if old.identity != new.identity:
        reasons.insert(0, "other settings")
    if environment["device"] != "cpu":
        reasons.append("a GPU")
    if environment["engine"] not in _REPRODUCIBLE_ENGINES:
        reasons.append(f"engine {environment['engine']}")
    return reasons


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"


def _notes(baseline: Baseline, scores: RunScores) -> Iterator[str]:
    if added := [name for name in scores.cells if name not in baseline.cells]:
        yield f"not in the baseline, so not checked: {_some(added)}; `harness baseline update` adds them"
    for name, cell in scores.cells.items():
        old = baseline.cells.get(name)
        if old is not None and (seeds := [seed for seed in cell.seeds if seed not in old.seeds]):
            yield f"{name}: seeds {', '.join(seeds)} are not in the baseline, so not checked"
    yield from (text for text in scores.problems if text.split(": ")[0] not in baseline.cells)
