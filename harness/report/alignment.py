"""How the two tokenizers of a pair align, read from the pair's prepared training set. Nothing is tokenized again.

Preparation (dskd/data/preparation.py) pairs the tokens of each response that cover the same bytes, and counts them. The counts are of
the whole set. The first divergence is that of its first EXAMINED examples.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dskd.data.rows import labels
from dskd.errors import InputError
from dskd.io import read_object
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.vocabulary import Vocabulary
from harness.report.results import Result
from harness.runs.identity import Identity

EXAMINED = 200
SHOWN = 4
_COUNTS = (
    "examples", "student_tokens", "teacher_tokens", "aligned", "aligned_share", "shared_vocabulary", "same_vocabulary",
)  # fmt: skip


def alignments(results: Sequence[Result]) -> list[dict[str, Any]]:
    """An entry for each pair that was trained: counts, first divergence and examples; or `reason` if they are not known."""
    pairs: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.is_training:
            pairs.setdefault((result.record.cell.teacher, str(result.record.cell.student)), []).append(result)
    entries = []
    for (teacher, student), trainings in sorted(pairs.items()):
        entry: dict[str, Any] = {"teacher": teacher, "student": student}
        prepared = next((training for training in trainings if _dataset(training) is not None), None)
        if prepared is None:
            entry["reason"] = "the run's folder does not hold this pair's training set with the tokens of both models"
        else:
            entry |= _measured(prepared, _tokenizer_folders(prepared, trainings))
        entries.append(entry)
    return entries


def _dataset(training: Result) -> Path | None:
    """The prepared set of a training with the tokens of two models; None if it is not in the run's folder."""
    parts = training.record.identity.parts.get("data")
    if not parts or parts.get("teacher_tokenizer") is None:
        return None
    folder = training.root / "artifacts" / "data" / Identity.of(parts).short / "dataset"
    return folder if (folder / "report.json").is_file() else None


def _tokenizer_folders(training: Result, trainings: Sequence[Result]) -> dict[str, Path]:
    """The folders of the student's and the teacher's tokenizer, if they are in the run's folder."""
    teachers = (training.record.identity.parts.get("teacher") for training in trainings)
    parts = next((parts for parts in teachers if parts), None)
    folders = {"student": training.folder / "model"}
    if parts is not None:
        folders["teacher"] = training.root / "artifacts" / "models" / Identity.of(parts).short / "model"
    return {side: folder for side, folder in folders.items() if (folder / "tokenizer_config.json").is_file()}


def _measured(training: Result, tokenizers: dict[str, Path]) -> dict[str, Any]:
    folder = _dataset(training)
    assert folder is not None
    try:
        counts = read_object(folder / "report.json")
    except InputError:
        return {"reason": "the report of this pair's training set cannot be read"}
    from datasets import load_from_disk  # takes seconds to import

    rows = load_from_disk(str(folder)).select(range(min(EXAMINED, counts["kept"])))
    sides = {"student": [_marked(row, "student") for row in rows], "teacher": [_marked(row, "teacher") for row in rows]}
    first = [next((k for k, (_, aligned) in enumerate(row) if not aligned), None) for row in sides["student"]]
    places = [place for place in first if place is not None]
    readers = {side: _reader(path) for side, path in sorted(tokenizers.items())}
    chosen = [k for k, place in enumerate(first) if place is not None][:SHOWN] or list(range(min(SHOWN, len(first))))
    return {
        **{name: counts.get(name) for name in _COUNTS},
        "examined": len(first),
        "wholly_aligned": len(first) - len(places),
        "first_divergence": statistics.median(places) if places else None,
        "examples_shown": [
            {side: [[read(token), aligned] for token, aligned in sides[side][k]] for side, read in readers.items()}
            for k in chosen
            if readers
        ],
    }


def _marked(row: dict[str, Any], side: str) -> list[tuple[int, bool]]:
    """The tokens of a response, including its end, each with whether it has a partner."""
    partners = set(row[f"{side}_pairs"])
    return [(token, k in partners) for k, token in enumerate(labels(row, side))]


def _reader(folder: Path) -> Any:
    """A function from a token id to its text. Bytes that are not text become \\xNN; special tokens have their name."""
    tokenizer = load_tokenizer(folder)
    written = Vocabulary.from_tokenizer(tokenizer).token_bytes

    def read(token: int) -> str:
        text = written[token].decode(errors="backslashreplace") if token < len(written) else ""
        return text or str(tokenizer.convert_ids_to_tokens(token))

    return read
