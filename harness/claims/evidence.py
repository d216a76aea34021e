"""What records have of methods: their scores on a task, how they were tuned, and which pairs have one vocabulary."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dskd.errors import InputError
from dskd.methods import METHODS
from harness.claims.claims_file import Claim, Kind
from harness.config.tuning import base_name
from harness.results.distinct import distinct_records, newest_versions
from harness.results.item_scores import ItemScores, Results, stack
from harness.runs.records import Record
from harness.tables.notes import mixed_settings
from harness.tuning.records import TuningRecord

# Teacher and student, as records name them.
Pair = tuple[str, str]
OWN_DATA = "default"


class MissingError(Exception):
    """A method has no scores where a claim needs them; says what is missing."""


class Evidence:
    """The records of a run or an export, by what claims ask for.

    Attributes:
        notes: On records that were left out, and on seeds of unlike settings.
    """

    def __init__(self, results: Results) -> None:
        """InputError where two records of one cell were made with different settings."""
        records = distinct_records(results.records)
        self._items = results.items
        self._trainings: dict[tuple[Pair, str], list[Record]] = defaultdict(list)
        self._scored: dict[tuple[Pair, str, str], list[Record]] = defaultdict(list)
        evaluations, self.notes = newest_versions([record for record in records if record.cell.task is not None])
        for record in records:
            if record.cell.student is not None and record.cell.task is None and record.status == "done":
                self._trainings[(record.cell.teacher, record.cell.student), record.cell.method].append(record)
        self._columns: dict[str, set[str]] = defaultdict(set)
        for record in evaluations:
            cell = record.cell
            self._columns[str(cell.task)].add(str(cell.column))
            if cell.student is not None:
                self._scored[(cell.teacher, cell.student), cell.method, str(cell.column)].append(record)
        groups = [sorted(group, key=lambda each: each.cell.seed or 0) for group in self._scored.values()]
        self.notes += mixed_settings(groups)
        self.pairs = sorted({pair for pair, _, _ in self._scored})
        self.methods = sorted({method for _, method, _ in self._scored})

    def kind(self, pair: Pair) -> Kind | None:
        """Whether the two models of a pair have one vocabulary: by their tokenizers, or by a method that needs one."""
        found: Kind | None = None
        for parts in self._training_parts(pair):
            if _needs_one_vocabulary(str(parts.get("method"))):
                return "matched"
            data = parts.get("data")
            if isinstance(data, dict) and data.get("teacher_tokenizer") is not None:
                if data["teacher_tokenizer"] == data.get("student_tokenizer"):
                    return "matched"
                found = "mismatched"
        return found

    def _training_parts(self, pair: Pair) -> Iterable[dict]:
        """The identities of a pair's trainings, of their own records or inside of evaluations."""
        for (of, _), trainings in self._trainings.items():
            if of == pair:
                yield from (record.identity.parts for record in trainings)
        for (of, _, _), evaluations in self._scored.items():
            if of == pair:
                models = (record.identity.parts.get("model") for record in evaluations)
                yield from (model for model in models if isinstance(model, dict))

    def pairs_of(self, claim: Claim) -> list[Pair]:
        """The pairs that a claim is about: those that it lists, or those of its kind on which its method has records.

        Where the method has none at all, every pair of the kind, so that it can be said what is missing.
        """
        if isinstance(claim.pairs, list):
            listed = [pair.partition("/") for pair in claim.pairs]
            return [(teacher, student) for teacher, _, student in listed]
        needs_one = any(_needs_one_vocabulary(name) for name in (claim.better, *claim.than))
        kinds = ("matched",) if needs_one else ("matched", "mismatched", None)
        wanted = [
            pair
            for pair in self.pairs
            if claim.pairs in ("all", self.kind(pair)) and self.kind(pair) in kinds and _trained_on(pair, claim)
        ]
        name = claim.recorded(claim.better)
        return [pair for pair in wanted if self._has(pair, name)] or wanted

    def _has(self, pair: Pair, method: str) -> bool:
        return any((of, named) == (pair, method) for of, named, _ in self._scored)

    def tasks_of(self, claim: Claim, pair: Pair) -> list[str]:
        """The columns of a claim's tasks; for `all` those on which any of its methods has records on this pair.

        Raises:
            InputError: For a task of several decoding protocols, none of them greedy.
        """
        if isinstance(claim.tasks, list):
            return [self._column(task) for task in claim.tasks]
        names = {claim.recorded(name) for name in (claim.better, *claim.than)}
        columns = {column for of, method, column in self._scored if of == pair and method in names}
        tasks = {task for task, found in self._columns.items() if found & columns}
        return sorted({self._column(task) for task in tasks})

    def _column(self, task: str) -> str:
        columns = self._columns.get(task, set())
        if task in columns or not columns:
            return task
        if len(columns) > 1:
            raise InputError(
                f"{task} has several decoding protocols; fix: name one in tasks: {', '.join(sorted(columns))}"
            )
        return next(iter(columns))

    def scores(self, pair: Pair, method: str, column: str) -> tuple[ItemScores, bool]:
        """The scores of a method on a task, over its seeds, and whether a higher one is better.

        Raises:
            MissingError: Where a seed has none.
            InputError: Where seeds do not fit together.
        """
        records = self._scored.get((pair, method, column), [])
        if not records:
            raise MissingError("")
        for record in records:
            metric = None if record.status == "failed" else record.metrics[str(record.headline)]
            if metric is None or metric.value is None:
                raise MissingError(f"seed {record.cell.seed} failed")
            if record.cell.key not in self._items:
                raise MissingError(f"seed {record.cell.seed} has no scores of items")
        name = str(records[0].headline)
        both = [(record, self._items[record.cell.key]) for record in records]
        return stack(both, name), all(record.metrics[name].higher_is_better for record in records)

    def unlike_tuning(self, pair: Pair, methods: Sequence[str]) -> str | None:
        """Why the tuning of these methods on a pair does not make them comparable; None where it does."""
        budgets: dict[str, str] = {}
        for method in methods:
            tunings = [record.tuning for record in self._trainings.get((pair, method), [])]
            if not tunings or any(tuning is None for tuning in tunings):
                return f"the records of {method} do not say how it was tuned"
            for tuning in tunings:
                assert tuning is not None
                budgets.setdefault(_terms(tuning), method)
        if len(budgets) > 1:
            first, second, *_ = budgets.items()
            return f"tuned on other terms: {first[1]} {first[0]}, {second[1]} {second[0]}"
        return None

    def hint(self, method: str) -> str:
        """What is said of a method that no record has and that is none of ours: the nearest that there is."""
        if {method, base_name(method)} & {*self.methods, *METHODS}:
            return ""
        near = difflib.get_close_matches(base_name(method), self.methods, n=1, cutoff=0.85)
        return f"; did you mean '{near[0]}'?" if near else ""


def _terms(tuning: TuningRecord) -> str:
    halving = ", halving" if tuning.halving else ""
    return f"{json.dumps(tuning.budget, sort_keys=True)}{halving} on {', '.join(sorted(tuning.teacher))}"


def _needs_one_vocabulary(name: str) -> bool:
    method = METHODS.get(name)
    return method is not None and method.requires.vocabulary == "same"


def _trained_on(pair: Pair, claim: Claim) -> bool:
    """Whether a student was trained on one of a claim's training sets, by its name."""
    return claim.data is None or (pair[1].partition("+")[2] or OWN_DATA) in claim.data
