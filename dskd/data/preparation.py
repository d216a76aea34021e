"""Examples in both tokenizations, aligned once; dskd/data/collator.py makes batches of them.

A training file holds one JSON object a line with `prompt` and `output`, or for models with a template `instruction`, `output` and
perhaps `input`. A response is tokenized as it follows its prompt, ends with the end-of-sequence token, and is what the labels cover.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from dskd.errors import InputError
from dskd.io import read_objects
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.alignment import UNKNOWN, align, byte_groups, byte_spans
from dskd.tokenization.prompt_templates import Instruction, prompt_text, template_of, writes_special_tokens
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary


def load_examples(path: Path, *, instructions: bool = False) -> list[Example]:
    """Read a training file.

    Args:
        path: JSON lines with `prompt` and `output`, or with `instruction`, `output` and perhaps `input`.
        instructions: Read instructions, for models with a template, and not whole prompts.

    Raises:
        InputError: With the line number, for a line that is no example.
    """
    asked = "instruction" if instructions else "prompt"
    examples = []
    for number, row in read_objects(path):
        if not all(isinstance(row.get(key), str) for key in (asked, "output")):
            raise InputError(f"{path}:{number}: {asked} and output must be strings; fix: add the missing key")
        if not row["output"]:
            raise InputError(f"{path}:{number}: output is empty; fix: remove the line or give the response")
        given = row.get("input") or ""
        if instructions and not isinstance(given, str):
            raise InputError(f"{path}:{number}: input must be a string; fix: correct it or leave it out")
        examples.append(Example(Instruction(row[asked], given) if instructions else row[asked], row["output"]))
    return examples


class PreparationReport(BaseModel):
    """What became of a training file; counts are of examples unless they say tokens.

    Left out are those that do not fit into max_length, that no tokens of one tokenizer stand for, and that spell a special token.
    content: sha256 of the prepared rows. *_vocabulary: fingerprints of the vocabularies.
    """

    examples: int
    kept: int
    too_long_student: int
    too_long_teacher: int
    not_encodable: int
    special_tokens: int
    content: str
    max_length: int
    longest_student: int
    longest_teacher: int
    student_vocabulary: str
    teacher_vocabulary: str | None
    student_tokens: int
    teacher_tokens: int
    aligned: int
    aligned_share: float | None
    shared_vocabulary: int | None
    same_vocabulary: bool | None


def prepare_dataset(
    examples: Path,
    output: Path,
    *,
    student: Path,
    teacher: Path | None = None,
    max_length: int = 512,
    limit: int | None = None,
) -> PreparationReport:
    """Tokenize a training file for a student and, with a teacher, for both, and align the two.

    Args:
        examples: A file that `load_examples` reads.
        output: Becomes a `datasets` folder with report.json.
        student, teacher: Model folders; their tokenizers alone are read.
        max_length: Tokens of the longest example that is kept.
        limit: Keep the first examples alone.

    Raises:
        InputError: For unusable input, and where no example is left.
    """
    import datasets

    tokenizers = [load_tokenizer(folder) for folder in (student, teacher) if folder is not None]
    whole = load_examples(examples, instructions=has_templates(*tokenizers))[:limit]
    vocabularies = [Vocabulary.from_tokenizer(tokenizer) for tokenizer in tokenizers]
    shared = None if teacher is None else share_vocabulary(vocabularies[1], vocabularies[0])
    left_out = dict.fromkeys(("too_long_student", "too_long_teacher", "not_encodable", "special_tokens"), 0)
    rows = []
    for example in whole:
        sides = [encode_whole(t, v, example) for t, v in zip(tokenizers, vocabularies, strict=True)]
        if reasons := _unusable(sides, max_length):
            for reason in reasons:
                left_out[reason] += 1
        else:
            rows.append(prepared_row(*filter(None, sides), same_vocabulary=shared is not None and shared.same))
    if not rows:
        long = left_out["too_long_student"] or left_out["too_long_teacher"]
        fix = f"raise max_length above {max_length}" if long else "change the responses"
        counts = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in left_out.items())
        raise InputError(f"{examples}: none of {len(whole)} examples can be used ({counts}); fix: {fix}")
    sizes = {"examples": len(whole), "kept": len(rows), **left_out, "max_length": max_length}
    report = _report(rows, sizes, vocabularies, shared)
    datasets.Dataset.from_list(rows).save_to_disk(output)
    (output / "report.json").write_text(report.model_dump_json(indent=2) + "\n")
    return report


def _report(
    rows: list[dict[str, Any]],
    sizes: dict[str, int],
    vocabularies: Sequence[Vocabulary],
    shared: SharedVocabulary | None,
) -> PreparationReport:
    student_tokens, longest_student = _lengths(rows, "student")
    teacher_tokens, longest_teacher = _lengths(rows, "teacher") if shared is not None else (0, 0)
    aligned = sum(len(row.get("student_pairs", ())) for row in rows)
    return PreparationReport(
        **sizes,
        content=hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        longest_student=longest_student,
        longest_teacher=longest_teacher,
        student_vocabulary=vocabularies[0].fingerprint,
        teacher_vocabulary=vocabularies[1].fingerprint if shared is not None else None,
        student_tokens=student_tokens,
        teacher_tokens=teacher_tokens,
        aligned=aligned,
        aligned_share=aligned / student_tokens if shared is not None else None,
        shared_vocabulary=len(shared) if shared is not None else None,
        same_vocabulary=shared.same if shared is not None else None,
    )


def _unusable(sides: Sequence[Encoded | None], max_length: int) -> list[str]:
    """Why an example is left out, in names of the report's counts; empty for one that is not."""
    encoded = [side for side in sides if side is not None and len(side.ids) > side.prompt_length]
    if len(encoded) < len(sides):
        return ["not_encodable"]
    if any(side.special for side in encoded):
        return ["special_tokens"]
    names = zip(("student", "teacher"), encoded, strict=False)
    return [f"too_long_{name}" for name, side in names if len(side.ids) > max_length]


def _lengths(rows: Sequence[dict[str, Any]], side: str) -> tuple[int, int]:
    lengths = [len(row[f"{side}_ids"]) for row in rows]
    return sum(lengths) - sum(row[f"{side}_prompt_length"] for row in rows), max(lengths)


def preparation_report(data: Path) -> dict[str, Any]:
    """What `prepare_dataset` wrote beside the rows. Raises InputError where it did not."""
    if not (data / "report.json").is_file():
        raise InputError(f"{data}: no prepared dataset; fix: make it with dskd.data.preparation.prepare_dataset")
    return json.loads((data / "report.json").read_text(encoding="utf-8"))
