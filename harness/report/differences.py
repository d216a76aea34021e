"""Every method against one of them, the anchor, paired by item (harness/statistics/paired_tests.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dskd.errors import InputError
from harness.report.results import Result
from harness.results.item_scores import Items, ItemScores, stack
from harness.statistics.paired_tests import PairedComparison, compare, holm_of

_Cells = dict[str, list[Result]]


def differences(results: Sequence[Result], anchor: str, items: Mapping[str, Items]) -> list[dict[str, Any]]:
    """A row for each method of a pair on each task of the anchor: method minus anchor, in points.

    `p_holm` is adjusted over all rows of the pair. A comparison that is not possible has a `reason`. `items` has the item scores by
    `record.cell.key`.
    """
    pairs: dict[tuple[str, str], dict[str, _Cells]] = {}
    for result in results:
        cell = result.record.cell
        if not result.is_evaluation or cell.student is None:
            continue
        tasks_of_pair = pairs.setdefault((cell.teacher, cell.student), {})
        tasks_of_pair.setdefault(str(cell.column), {}).setdefault(cell.method, []).append(result)
    rows = []
    for (teacher, student), tasks in sorted(pairs.items()):
        of_pair: list[tuple[dict[str, Any], PairedComparison | None]] = [
            ({"teacher": teacher, "student": student, "task": task, **row}, compared)
            for task, methods in sorted(tasks.items())
            if anchor in methods
            for row, compared in _against(anchor, methods, items)
        ]
        adjusted = iter(holm_of([compared for _, compared in of_pair if compared is not None]))
        rows += [row if compared is None else {**row, "p_holm": next(adjusted)} for row, compared in of_pair]
    return rows


def _against(
    anchor: str, methods: _Cells, items: Mapping[str, Items]
) -> list[tuple[dict[str, Any], PairedComparison | None]]:
    metric = str(methods[anchor][0].record.headline)
    try:
        base = _scores(methods[anchor], metric, items)
    except InputError as error:
        return [({"method": method, "reason": _cause(error)}, None) for method in sorted(methods) if method != anchor]
    rows: list[tuple[dict[str, Any], PairedComparison | None]] = []
    for method in sorted(methods.keys() - {anchor}):
        try:
            other = _scores(methods[method], metric, items)
            compared = compare(other, base)
        except InputError as error:
            rows.append(({"method": method, "reason": _cause(error)}, None))
            continue
        row = {
            "method": method,
            "metric": metric,
            "difference": round(compared.difference, 4),
            "ci95": [round(end, 4) for end in compared.ci95],
            "p_value": compared.p_value,
            "min_detectable_effect": round(compared.min_detectable_effect, 4),
            "items": compared.n_items,
            "seeds": compared.n_seeds,
            "test": compared.method,
            "excluded": compared.n_excluded + compared.n_prompts_differ,
        }
        rows.append((row, compared))
    return rows


def _scores(evaluations: Sequence[Result], metric: str, items: Mapping[str, Items]) -> ItemScores:
    without = [result.name for result in evaluations if result.record.cell.key not in items]
    if without:
        raise InputError(f"{without[0]}: samples.jsonl is missing or damaged; fix: evaluate again")
    return stack([(result.record, items[result.record.cell.key]) for result in evaluations], metric)


def _cause(error: InputError) -> str:
    """The message without its path and fix, which are for the user of the command."""
    text = str(error).split("; fix:")[0]
    return text.split(": ", 1)[1] if text.startswith("/") and ": " in text else text
