"""Every method against one of them, the anchor, paired by item and seed (harness/statistics/paired_tests.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dskd.errors import InputError
from harness.report.results import Result
from harness.results.item_scores import Items, ItemScores, Kind, stack
from harness.results.load import key_of
from harness.statistics.paired_tests import compare, holm

_Cells = dict[str, list[Result]]


def differences(results: Sequence[Result], anchor: str, items: Mapping[str, Items]) -> list[dict[str, Any]]:
    """A row for each method of a pair on a task where the anchor was evaluated too: method minus anchor, in points.

    `items` are those of the evaluations, by `key_of`.
    `p_holm` is adjusted over all rows of the pair, as many as a reader looks through. A row that cannot be made has its `reason`.
    """
    pairs: dict[tuple[str, str], dict[str, _Cells]] = {}
    for result in results:
        cell = result.record.cell
        if cell.task is None or cell.student is None or result.record.status != "done":
            continue
        tasks_of_pair = pairs.setdefault((cell.teacher, cell.student), {})
        tasks_of_pair.setdefault(str(cell.column), {}).setdefault(cell.method, []).append(result)
    rows = []
    for (teacher, student), tasks in sorted(pairs.items()):
        found: list[dict[str, Any]] = [
            {"teacher": teacher, "student": student, "task": task, **row}
            for task, methods in sorted(tasks.items())
            if anchor in methods
            for row in _against(anchor, methods, items)
        ]
        known = [row for row in found if "reason" not in row]
        for row, adjusted in zip(known, holm([row["p_value"] for row in known]), strict=True):
            row["p_holm"] = adjusted
        rows += found
    return rows


def _against(anchor: str, methods: _Cells, items: Mapping[str, Items]) -> list[dict[str, Any]]:
    metric = str(methods[anchor][0].record.headline)
    try:
        base = _scores(methods[anchor], metric, items)
    except InputError as error:
        return [{"method": method, "reason": _cause(error)} for method in sorted(methods) if method != anchor]
    rows: list[dict[str, Any]] = []
    for method in sorted(methods.keys() - {anchor}):
        try:
            other = _scores(methods[method], metric, items)
            kind: Kind = "binary" if base.kind == other.kind == "binary" else "continuous"
            compared = compare(other, base, kind)
        except InputError as error:
            rows.append({"method": method, "reason": _cause(error)})
            continue
        rows.append(
            {
                "method": method,
                "metric": metric,
                "difference": round(compared.difference, 4),
                "ci95": [round(end, 4) for end in compared.ci95],
                "p_value": compared.p_value,
                "mde80": round(compared.mde80, 4),
                "items": compared.n_items,
                "seeds": compared.n_seeds,
                "test": compared.method,
                "excluded": compared.n_excluded + compared.n_prompts_differ,
            }
        )
    return rows


def _scores(evaluations: Sequence[Result], metric: str, items: Mapping[str, Items]) -> ItemScores:
    without = [result.name for result in evaluations if key_of(result.record) not in items]
    if without:
        raise InputError(f"{without[0]}: samples.jsonl is missing or broken; fix: evaluate again")
    return stack([(result.record, items[key_of(result.record)]) for result in evaluations], metric)


def _cause(error: InputError) -> str:
    """Without the path that it begins with and without the fix, which is for whoever runs the command."""
    text = str(error).split("; fix:")[0]
    return text.split(": ", 1)[1] if text.startswith("/") and ": " in text else text
