"""Whether methods keep their ranking along an axis of a matrix, such as the number of steps: from the records of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from dskd.errors import InputError
from harness.protocols import column_title
from harness.results.item_scores import ItemScores, Results
from harness.statistics.rank_agreement import RankAgreement, agreement
from harness.tables.comparison import item_scores_of_cells

FEWEST = 3  # methods: two have no more than an order
MEAN = "mean of tasks"


@dataclass(frozen=True)
class AgreementRow(RankAgreement):
    """How far the rankings at two values of an axis agree, for a pair on a task or on the mean of its tasks.

    Attributes:
        a, b: The two values.
        order_a, order_b: The methods at each, the best first.
        seeds, items: The fewest seeds of a method, and the items of all tasks together.
    """

    teacher: str
    student: str
    task: str
    a: str
    b: str
    order_a: tuple[str, ...]
    order_b: tuple[str, ...]
    seeds: int
    items: int


# {(teacher, student): {task: {value: {method: scores}}}}
_Grouped = dict[tuple[str, str], dict[str, dict[str, dict[str, ItemScores]]]]


def rank_agreement(results: Results, axis: str) -> tuple[list[AgreementRow], list[str]]:
    """Compare the rankings at every two values of an axis.

    Args:
        results: Of a run whose methods are named `METHOD+AXIS-VALUE`.
        axis: What their names say before the value, as `steps`.

    Returns:
        The rows, and notes on what was left out.

    Raises:
        InputError: Where no method has a value of the axis, or fewer than three have two.
    """
    scores, notes = item_scores_of_cells(results)
    lower = {
        record.headline
        for record in results.records
        if record.headline in record.metrics and not record.metrics[record.headline].higher_is_better
    }
    grouped: _Grouped = {}
    for cell, of_cell in scores.items():
        method, value = _split(cell.method, axis)
        if value is None or cell.student is None:
            continue
        signed = ItemScores(of_cell.ids, of_cell.seeds, -of_cell.values) if cell.metric in lower else of_cell
        task = column_title(cell.task, cell.protocol)
        by_task = grouped.setdefault((cell.teacher, cell.student), {})
        by_task.setdefault(task, {}).setdefault(value, {})[method] = signed
    if not grouped:
        known = ", ".join(sorted({cell.method for cell in scores}))
        raise InputError(
            f"rank-agreement: no method is named METHOD+{axis}-VALUE; fix: give another --axis; there are {known or 'none'}"
        )
    rows = [row for (teacher, student), tasks in grouped.items() for row in _rows(teacher, student, tasks, notes)]
    if not rows:
        raise InputError(
            f"rank-agreement: no pair has {FEWEST} methods at two values of {axis}; fix: run more of the matrix first"
        )
    return rows, notes


def _split(name: str, axis: str) -> tuple[str, str | None]:
    """A method's name without the part of the axis, and the value there."""
    base, *parts = name.split("+")
    of_axis = [part for part in parts if part.startswith(f"{axis}-")]
    if not of_axis:
        return name, None
    return "+".join([base, *(part for part in parts if part not in of_axis)]), of_axis[0].removeprefix(f"{axis}-")


def _rows(
    teacher: str, student: str, tasks: Mapping[str, Mapping[str, Mapping[str, ItemScores]]], notes: list[str]
) -> Iterator[AgreementRow]:
    values = sorted({value for by_value in tasks.values() for value in by_value}, key=_place)
    for a, b in combinations(values, 2):
        columns = {}
        methods = _in_all([by_value.get(value, {}) for by_value in tasks.values() for value in (a, b)])
        for task, by_value in tasks.items():
            own = _in_all([by_value.get(a, {}), by_value.get(b, {})])
            where = f"{teacher} -> {student}, {task}, {a} and {b}"
            if len(own) < FEWEST:
                notes.append(f"{where}: {len(own)} methods have both; a ranking needs {FEWEST}")
                continue
            columns[task] = own
        parts = {task: ([task], own) for task, own in columns.items()}
        if len(columns) > 1 and len(methods) >= FEWEST:
            parts[MEAN] = ([*tasks], methods)
        for title, (of_tasks, of_methods) in parts.items():
            sides = [[[tasks[task][value][m] for m in of_methods] for task in of_tasks] for value in (a, b)]
            found = _arrays(sides)
            if found is None:
                notes.append(f"{teacher} -> {student}, {title}, {a} and {b}: not all methods have the same items")
                continue
            one, other = found
            orders = [_order(of_methods, side) for side in found]
            agreed = agreement(one, other)
            seeds = min(method.shape[0] for side in found for method in side[0])
            items = sum(task[0].shape[1] for task in one)
            yield AgreementRow(**vars(agreed), teacher=teacher, student=student, task=title, a=a, b=b,
                               order_a=orders[0], order_b=orders[1], seeds=seeds, items=items)  # fmt: skip


def _place(value: str) -> tuple[float, str]:
    """Numbers in their order, then names."""
    try:
        return float(value), ""
    except ValueError:
        return float("inf"), value


def _in_all(sides: Sequence[Mapping[str, ItemScores]]) -> list[str]:
    """The methods that all have, in a fixed order."""
    return sorted(set.intersection(*(set(side) for side in sides)))


def _arrays(sides: Sequence[Sequence[Sequence[ItemScores]]]) -> list[list[list[np.ndarray]]] | None:
    """Scores of both sides on the items that all could be scored on; None where their items or seeds do not fit together."""
    found: list[list[list[np.ndarray]]] = [[] for _ in sides]
    for task in range(len(sides[0])):
        every = [method for side in sides for method in side[task]]
        places = [{identifier: k for k, identifier in enumerate(method.ids)} for method in every]
        if any(set(place) != set(places[0]) for place in places):
            return None
        ordered = [m.values[:, [place[name] for name in every[0].ids]] for m, place in zip(every, places, strict=True)]
        scored = ~np.isnan(np.concatenate(ordered)).any(axis=0)
        if not scored.any():
            return None
        half = len(sides[0][task])
        for number in range(len(sides)):
            found[number].append([values[:, scored] for values in ordered[number * half : (number + 1) * half]])
    of_seeds = [{task[k].shape[0] for task in side} for side in found for k in range(len(side[0]))]
    return found if all(len(counts) == 1 for counts in of_seeds) else None


def _order(methods: Sequence[str], side: Sequence[Sequence[np.ndarray]]) -> tuple[str, ...]:
    means = np.mean([[values.mean() for values in task] for task in side], axis=0)
    return tuple(methods[k] for k in np.argsort(-means, kind="stable"))
