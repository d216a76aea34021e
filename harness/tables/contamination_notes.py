"""Notes on test items that occur in training data, and on training data that is not known."""

from __future__ import annotations

from collections.abc import Iterable

from harness.runs.records import DataOverlap, Record


def contamination_notes(records: Iterable[Record]) -> list[str]:
    """A note for each task and training set that share text, and one for each model whose training data is not known.

    Records without `overlap` were not examined and get no note.
    """
    contaminated: dict[str, set[str]] = {}
    unknown = set()
    for record in records:
        for entry in record.overlap or ():
            model = f"{entry.of} {record.cell.student if entry.of == 'student' else record.cell.teacher}"
            if entry.reason is not None:
                data = f" ({entry.data})" if entry.data else ""
                unknown.add(f"test items not compared with training data of the {model}{data}: {entry.reason}")
            elif entry.ngram:
                contaminated.setdefault(f"{record.cell.task}: {_counts(entry)}", set()).add(model)
    shared = [f"{text} of the {', '.join(sorted(models))}" for text, models in sorted(contaminated.items())]
    return shared + sorted(unknown)


def _counts(entry: DataOverlap) -> str:
    shared = f"share {entry.n} consecutive words with the training data {entry.data}"
    if not entry.exact:
        return f"{entry.ngram} of {entry.items} test items {shared}"
    answers = f" ({entry.exact_with_answer} with the answer)" if entry.exact_with_answer else ""
    return f"{entry.exact} of {entry.items} test items occur verbatim{answers} in, and {entry.ngram} {shared}"
