"""What a reader of a table must know of test items that stand in training data, and of training data that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable

from harness.runs.records import DataOverlap, Record


def overlap_notes(records: Iterable[Record]) -> list[str]:
    """A note for each task and training set with something in common, and one for each model of unknown training.

    Nothing for records without `overlap`, which nobody looked at, and none where nothing was found.
    """
    found: dict[str, set[str]] = {}
    unknown = set()
    for record in records:
        for entry in record.overlap or ():
            who = f"{entry.of} {record.cell.student if entry.of == 'student' else record.cell.teacher}"
            if entry.reason is not None:
                named = f" ({entry.data})" if entry.data else ""
                unknown.add(f"test items not compared with training data of the {who}{named}: {entry.reason}")
            elif entry.ngram:
                found.setdefault(f"{record.cell.task}: {_told(entry)}", set()).add(who)
    return [f"{told} of the {', '.join(sorted(who))}" for told, who in sorted(found.items())] + sorted(unknown)


def _told(entry: DataOverlap) -> str:
    shared = f"share {entry.n} words in a row with the training data {entry.data}"
    if not entry.exact:
        return f"{entry.ngram} of {entry.items} test items {shared}"
    answers = f" ({entry.exact_with_answer} with the answer)" if entry.exact_with_answer else ""
    return f"{entry.exact} of {entry.items} test items stand word for word{answers} in, and {entry.ngram} {shared}"
