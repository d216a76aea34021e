"""Compares what the code does with fixed models with a baseline; rounding of another processor is told from a change of the code.

Three kinds of cells:

- `outputs model/task`: the greedy output of each item. Where two outputs part, the first tokens that differ are looked at: if the
  code now gives both logits that are closer than TIE, rounding chose between them, and the rest of the item says nothing. Else the code
  behaves differently.
- `first steps student/method`: each logged value of the first three steps, within RELATIVE of the baseline's. A response that the
  student sampled may part from the baseline's in one place where a random number meets a boundary of two tokens. What follows cannot
  be compared then, but for how far the weights moved: `inconclusive` if that was before the first step. Two such responses in a step are
  no accident.
- `scores task`: the scores of stored completions, which must be the same.

docs/regression.md has the measurements that the limits come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from harness.regression.check import Verdict, worst
from harness.regression.fixed.records import Behaviour, FirstSteps, FixedBaseline, Outputs, Step

TIE = 1e-3  # between two logits
RELATIVE = 1e-4
ABSOLUTE = 1e-6
MOVED = 0.1  # relative, where a sampled response parted
MOST_TIES = 0.25  # of a cell's items
_SCORE = 1e-6  # points
_LISTED = 5
# (cell, item, the output before both, one token, the other) -> how far apart their logits are
Gap = Callable[[str, str, tuple[int, ...], int, int], float]


@dataclass(frozen=True)
class FixedVerdict:
    """The verdict on one cell. `compared`: values; `changed`: of these; `ties`: items that rounding alone can explain."""

    name: str
    verdict: Verdict
    reasons: list[str]
    compared: int
    changed: int = 0
    ties: int = 0
    largest: float | None = None  # relative difference of first steps, points of scores


@dataclass(frozen=True)
class FixedReport:
    """The verdicts of all cells, and notes, which are no reason to fail."""

    cells: list[FixedVerdict]
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the cells."""
        return worst(cell.verdict for cell in self.cells)

    def as_dict(self) -> dict[str, Any]:
        """The document of `harness check --json`."""
        return {"schema_version": 1, "kind": "fixed-models", "verdict": self.verdict, **asdict(self)}


def check_fixed(baseline: FixedBaseline, now: Behaviour, gap: Gap) -> FixedReport:
    """Compare what was measured with a baseline.

    Args:
        baseline: The baseline.
        now: What the code does.
        gap: How far apart the logits of two tokens are, by the code as it is.
    """
    before = baseline.behaviour
    cells = [
        *_checked("scores", before.scores, now.scores, now.failed, _scores),
        *_checked("outputs", before.outputs, now.outputs, now.failed, partial(_outputs, gap=gap)),
        *_checked("first steps", before.first_steps, now.first_steps, now.failed, _first_steps),
    ]
    added = [name for part in ("outputs", "first_steps", "scores") for name in _added(before, now, part)]
    named = f"{', '.join(added[:_LISTED])}{', ...' if len(added) > _LISTED else ''}"
    note = f"not in the baseline, so not checked: {named}; `harness baseline update` adds them"
    return FixedReport(cells, [note] if added else [])


def _added(before: Behaviour, now: Behaviour, part: str) -> list[str]:
    return [name for name in getattr(now, part) if name not in getattr(before, part)]


def _checked(
    part: str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    failed: Mapping[str, str],
    compare: Callable[[str, Any, Any], FixedVerdict],
) -> Iterator[FixedVerdict]:
    for cell, old in before.items():
        name = f"{part} {cell}"
        if cell in failed:
            yield FixedVerdict(name, "regress", [f"failed: {failed[cell]}"], 0)
        elif cell not in now:
            yield FixedVerdict(name, "incomplete", ["the code does not have it"], 0)
        else:
            yield compare(name, old, now[cell])


def _scores(
    name: str, old: Mapping[str, Mapping[str, float | None]], new: Mapping[str, Mapping[str, float | None]]
) -> FixedVerdict:
    changed, lost, largest = [], [], 0.0
    pairs = [(item, metric) for item, scores in old.items() for metric in scores]
    for item, metric in pairs:
        was, now = old[item][metric], new.get(item, {}).get(metric)
        if now is None and was is not None:
            lost.append(f"{item} {metric}")
        elif was is None or abs(was - (now or 0.0)) > _SCORE:
            changed += [f"{item} {metric} {was} -> {now}"] if was != now else []
            largest = max(largest, abs((was or 0.0) - (now or 0.0)))
    reasons = [f"{len(changed)} of {len(pairs)} scores changed ({_some(changed)})"] if changed else []
    reasons += [f"{len(lost)} scores that could not be given ({_some(lost)})"] if lost else []
    verdict: Verdict = "regress" if changed else "incomplete" if lost else "pass"
    return FixedVerdict(name, verdict, reasons, len(pairs), len(changed), largest=largest)


def _outputs(name: str, old: Outputs, new: Outputs, gap: Gap) -> FixedVerdict:
    cell = name.removeprefix("outputs ")
    if old.prompts != new.prompts:
        return FixedVerdict(name, "regress", ["the prompts or their tokens changed"], len(old.items), len(old.items))
    changed: list[str] = []
    ties: list[str] = []
    for item, (text, ids) in old.items.items():
        now_text, now_ids = new.items[item]
        if ids == now_ids:
            if text != now_text:
                changed.append(f"{item}: another text of the same tokens")
            continue
        at = _parting(ids, now_ids)
        if at is None:
            changed.append(f"{item}: {len(ids)} tokens -> {len(now_ids)}")
            continue
        apart = gap(cell, item, ids[:at], ids[at], now_ids[at])
        told = f"{item}: token {at}, logits {apart:.2g} apart"
        (ties if apart < TIE else changed).append(told)
    reasons = [f"{len(changed)} of {len(old.items)} outputs changed ({_some(changed)})"] if changed else []
    reasons += [f"{len(ties)} outputs part where rounding may choose ({_some(ties)})"] if ties else []
    verdict: Verdict = "regress" if changed else "inconclusive" if len(ties) > MOST_TIES * len(old.items) else "pass"
    return FixedVerdict(name, verdict, reasons, len(old.items), len(changed), len(ties))


def _parting(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place where two outputs differ; None where one only goes on after the other's end."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)


def _first_steps(name: str, old: FirstSteps, new: FirstSteps) -> FixedVerdict:
    changed: list[str] = []
    compared, largest, parted = 1, 0.0, 0  # parted: the step with the first sampled response that is another
    for number, (before, after) in enumerate(zip(old.steps, new.steps, strict=False), start=1):
        if sampled := _sampled_otherwise(before, after):
            parted = number
            changed += [f"step {number}: {sampled} of {len(before.sampled)} sampled responses"] if sampled > 1 else []
            break
        for key in sorted({*before.values, *after.values}):
            compared += 1
            was, now = before.values.get(key, math.nan), after.values.get(key, math.nan)
            largest = max(largest, _relative(was, now))
            if differs(was, now):
                changed.append(f"step {number}: {key} {was:.6g} -> {now:.6g}")
    if len(old.steps) != len(new.steps) or (old.tokens != new.tokens and not parted):
        changed.append(f"{len(old.steps)} steps of {old.tokens} tokens -> {len(new.steps)} of {new.tokens}")
    if differs(old.moved, new.moved, MOVED if parted else RELATIVE):
        changed.append(f"the weights moved by {old.moved:.6g} -> {new.moved:.6g}")
    if changed:
        reason = f"{len(changed)} of {compared} values changed ({_some(changed)})"
        return FixedVerdict(name, "regress", [reason], compared, len(changed), largest=largest)
    reasons = [f"one sampled response of step {parted} parts from the baseline's; nothing after it was compared"]
    return FixedVerdict(
        name,
        "inconclusive" if parted == 1 else "pass",
        reasons if parted else [],
        compared,
        ties=int(parted > 0),
        largest=largest,
    )


def _sampled_otherwise(before: Step, after: Step) -> int:
    """How many sampled responses differ; all where there are more or fewer of them."""
    if len(before.sampled) != len(after.sampled):
        return max(len(before.sampled), len(after.sampled))
    return sum(one != other for one, other in zip(before.sampled, after.sampled, strict=True))


def differs(was: float, now: float, relative: float = RELATIVE) -> bool:
    """Whether rounding does not explain the difference of two values; nothing explains one from what is no number."""
    return not abs(was - now) <= relative * max(abs(was), abs(now)) + ABSOLUTE


def _relative(was: float, now: float) -> float:
    larger = max(abs(was), abs(now))
    return abs(was - now) / larger if larger else 0.0


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"
