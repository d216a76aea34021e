"""From folders to what a training run holds in memory, with every mismatch told before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.methods.base import Method
from dskd.models import load_model, load_tokenizer
from dskd.trainer import Distiller
from dskd.vocabulary import Vocabulary, share_vocabulary


def load_run(
    data: Path, student: Path, teacher: Path | None, method: Method, *, dtype: str, device: Any
) -> tuple[Any, Any, Distiller]:
    """(dataset, student tokenizer, distiller on `device`) of a prepared dataset and model folders.

    `dtype` is the teacher's; the student keeps float32 weights, because Adam's small steps are lost in bfloat16 ones. Raises
    InputError for folders that cannot be used, data prepared for other tokenizers, examples longer than a model's context, and
    vocabularies that the method cannot take.
    """
    import datasets

    report = preparation_report(data)
    if teacher is not None and report["teacher_vocabulary"] is None:
        raise InputError(f"{data}: prepared without a teacher; fix: prepare it with teacher {teacher}")
    tokenizer = load_tokenizer(student)
    student_model = load_model(student).to(device)
    student_vocabulary = _vocabulary(student, tokenizer, student_model, report, "student")
    teacher_model = teacher_vocabulary = shared = None
    if teacher is not None:
        teacher_model = load_model(teacher, dtype).to(device)
        teacher_vocabulary = _vocabulary(teacher, load_tokenizer(teacher), teacher_model, report, "teacher")
        shared = share_vocabulary(teacher_vocabulary, student_vocabulary)
        if method.vocabulary == "same" and not shared.same:
            raise InputError(
                f"{method.name}: needs one vocabulary, but {teacher} has {teacher_vocabulary.size} tokens and {student} "
                f"{student_vocabulary.size}, not the same; fix: use a method for two vocabularies, such as dskd-v2-eta"
            )
    distiller = Distiller(
        student_model,
        method,
        student_size=student_vocabulary.size,
        teacher=teacher_model,
        teacher_size=teacher_vocabulary.size if teacher_vocabulary is not None else 0,
        shared=shared,
    )
    return datasets.load_from_disk(str(data)), tokenizer, distiller


def preparation_report(data: Path) -> dict[str, Any]:
    """What `prepare_dataset` wrote beside the rows. Raises InputError where it did not."""
    if not (data / "report.json").is_file():
        raise InputError(f"{data}: no prepared dataset; fix: make it with dskd.data.prepare_dataset")
    return json.loads((data / "report.json").read_text(encoding="utf-8"))


def _vocabulary(folder: Path, tokenizer: Any, model: Any, report: dict[str, Any], side: str) -> Vocabulary:
    whole = Vocabulary.from_tokenizer(tokenizer)
    if whole.fingerprint != report[f"{side}_vocabulary"]:
        raise InputError(
            f"{folder}: the data was prepared for another {side} tokenizer; fix: prepare it with this folder"
        )
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = report[f"longest_{side}"]
    if positions is not None and longest > positions:
        raise InputError(
            f"{folder}: the model has {positions} positions, but the data examples of {longest} tokens; "
            f"fix: prepare it with max_length {positions}"
        )
    return whole.within(model.get_output_embeddings().weight.shape[0], str(folder))
