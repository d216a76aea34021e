"""Examples in both tokenizations, aligned once; dskd/data/collator.py makes batches of them.

A training file holds a JSON object a line, in any shape of docs/data-sources.md. It is cut into blocks (dskd/data/blocks.py), which
become parts (dskd/data/prepared_part.py) in one process or several; the parts stand in a hidden folder beside the output until all are
there, so that a preparation that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dskd.data.batch_encoding import Side
from dskd.data.blocks import Block, blocks_of
from dskd.data.dataset_folder import DatasetFolder
from dskd.data.encoding import (
    Encoded,
    encode_example,
    encode_prompt,
    encode_response,
    has_templates,
    prepared_row,
    text_of_prompt,
)
from dskd.data.examples import load_examples
from dskd.data.options import Takes, takes_of
from dskd.data.preparation_processes import make_parts, workers_for
from dskd.data.prepared_part import Counts, LeftOutExample, Recipe, read_part, take_text
from dskd.data.shapes import Example
from dskd.errors import InputError
from dskd.io import sync_folder, write_atomic
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import template_of
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary

__all__ = [
    "Encoded",
    "Example",
    "LeftOutExample",
    "PreparationReport",
    "encode_example",
    "encode_prompt",
    "encode_response",
    "has_templates",
    "load_examples",
    "preparation_report",
    "prepare_dataset",
    "prepared_row",
    "text_of_prompt",
]

REPORT = "report.json"
JOINED = "joined"


class PreparationReport(BaseModel):
    """What became of a training file; counts are of examples unless they say tokens.

    Left out are those that do not fit into max_length, that no tokens of one tokenizer stand for, that spell a special token, and that a
    chat template does not take or changes, opens reasoning for that they do not have, or has no answer in. Of conversations it is turns
    that are left out, and `kept` counts rows: `turns` in all.
    content: sha256 of the prepared rows. *_vocabulary: fingerprints of the vocabularies. left_out: by reason, the first three; empty in
    reports of older versions.
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
    template_refuses: int = 0
    template_changes: int = 0
    no_reasoning: int = 0
    no_answer: int = 0
    turns: int | None = None
    left_out: dict[str, list[LeftOutExample]] = {}


def prepare_dataset(
    examples: Path,
    output: Path,
    *,
    student: Path,
    teacher: Path | None = None,
    max_length: int = 512,
    limit: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparationReport:
    """Tokenize a training file for a student and, with a teacher, for both, and align the two.

    Memory holds a block of 2,000 examples a process. A preparation that was killed goes on with the blocks that are not done; the
    result is the same, byte for byte, for any number of workers.

    Args:
        examples: A file that `load_examples` reads.
        output: Becomes a `datasets` folder with report.json.
        student, teacher: Model folders; their tokenizers alone are read.
        max_length: Tokens of the longest example that is kept.
        limit: Keep the first examples alone.
        workers: Processes. By default one for each core that this process may use, and none but this one for a small file.
        progress: Called with (examples done, all examples) after each block.

    Raises:
        InputError: For unusable input, and where no example is left.
        TrainingFailed: Where a worker was ended from outside.
    """
    sides = tuple(Side.of(load_tokenizer(folder)) for folder in (student, teacher) if folder is not None)
    shared = None if teacher is None else share_vocabulary(sides[1].vocabulary, sides[0].vocabulary)
    takes = what_is_taken(*(side.tokenizer for side in sides))
    recipe = Recipe(examples, sides, max_length, takes, shared is not None and shared.same)
    blocks = blocks_of(examples, limit)
    parts = output.parent / f".{output.name}.parts"
    _keep_alone(parts, {recipe.name(block) for block in blocks})
    made = make_parts(recipe, blocks, parts, workers_for(blocks) if workers is None else workers)
    with closing(made):
        counts, content = _join(recipe, blocks, made, parts, progress)
    if not counts.kept:
        shutil.rmtree(parts)
        raise _nothing_kept(examples, counts, max_length)
    report = _report(counts, content, max_length, [side.vocabulary for side in sides], shared)
    _put(parts / JOINED, output, report)
    shutil.rmtree(parts)
    return report


def _keep_alone(parts: Path, names: set[str]) -> None:
    """A folder with those parts that an earlier attempt at the same has made, and nothing else."""
    parts.mkdir(parents=True, exist_ok=True)
    for entry in parts.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in names:
            entry.unlink()


def _join(
    recipe: Recipe,
    blocks: Sequence[Block],
    made: Iterable[Block],
    parts: Path,
    progress: Callable[[int, int], None] | None,
) -> tuple[Counts, str]:
    """Put the parts into one dataset as they are made; (their counts, sha256 of all rows)."""
    total, counts = sum(block.examples for block in blocks), Counts()
    content = hashlib.sha256(b"[")
    with DatasetFolder(parts / JOINED) as dataset:
        for block in made:
            table, own = read_part(parts / recipe.name(block))
            text = take_text(parts / recipe.name(block))
            if own.kept:
                content.update(b", " + text if counts.kept else text)
                dataset.write(table)
            counts.add(own, block.line)
            if progress is not None:
                progress(counts.examples, total)
        content.update(b"]")
        if counts.kept:
            dataset.finish(content.hexdigest()[:16])
    return counts, content.hexdigest()


def _put(joined: Path, output: Path, report: PreparationReport) -> None:
    """Move a dataset to its place; its report comes last and says that it is whole."""
    output.mkdir(parents=True, exist_ok=True)
    (output / REPORT).unlink(missing_ok=True)
    for old in output.glob("data-*-of-*.arrow"):
        old.unlink()
    for file in joined.iterdir():
        shutil.move(file, output / file.name)  # the output may be a link to another disk
    sync_folder(output)
    write_atomic(output / REPORT, report.model_dump_json(indent=2) + "\n")


def what_is_taken(*tokenizers: Any) -> Takes:
    """What models with these tokenizers take. InputError where some have a template and some have none."""
    has_templates(*tokenizers)  # or an error
    return takes_of(*map(template_of, tokenizers))


def _nothing_kept(examples: Path, counts: Counts, max_length: int) -> InputError:
    left_out = counts.left_out
    long = left_out["too_long_student"] or left_out["too_long_teacher"]
    fix = f"raise max_length above {max_length}" if long else "change the responses"
    if left_out["no_reasoning"]:
        fix = "set reasoning: cut for the template, or give data with reasoning"
    reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in left_out.items() if count)
    if details := [each.detail for shown in counts.shown.values() for each in shown if each.detail]:
        reasons += f": {details[0]}"
    return InputError(f"{examples}: none of {counts.examples} examples can be used ({reasons}); fix: {fix}")


def _report(
    counts: Counts,
    content: str,
    max_length: int,
    vocabularies: Sequence[Vocabulary],
    shared: SharedVocabulary | None,
) -> PreparationReport:
    own = counts.model_dump(exclude={"left_out", "shown"})
    return PreparationReport(
        **own,
        **counts.left_out,
        left_out=counts.shown,
        content=content,
        max_length=max_length,
        student_vocabulary=vocabularies[0].fingerprint,
        teacher_vocabulary=vocabularies[1].fingerprint if shared is not None else None,
        aligned_share=counts.aligned / counts.student_tokens if shared is not None else None,
        shared_vocabulary=len(shared) if shared is not None else None,
        same_vocabulary=shared.same if shared is not None else None,
    )


def preparation_report(data: Path) -> dict[str, Any]:
    """What `prepare_dataset` wrote beside the rows. Raises InputError where it did not."""
    if not (data / REPORT).is_file():
        raise InputError(f"{data}: no prepared dataset; fix: make it with dskd.data.preparation.prepare_dataset")
    return json.loads((data / REPORT).read_text(encoding="utf-8"))
