"""The part of a prepared dataset that one block of a training file becomes: an Arrow file that holds its counts as well."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
from pydantic import BaseModel

from dskd.data.batch_encoding import Side, encode_batch, prepared_rows
from dskd.data.blocks import Block, items_in
from dskd.data.encoding import Encoded
from dskd.data.examples import SHOWN, prompt_and_response
from dskd.data.options import Takes
from dskd.data.rows import label_spans
from dskd.data.shapes import Example, Item
from dskd.data.turns import ConversationEncoder, encoder_of
from dskd.io import write_atomic
from dskd.tokenization.prompt_templates import template_of, writes_special_tokens

REASONS = (
    *("too_long_student", "too_long_teacher", "not_encodable", "special_tokens"),
    *("template_refuses", "template_changes", "no_reasoning", "no_answer"),
)
SHOWN_CHARACTERS = 80  # of an example that is left out
_COUNTS = b"counts"


class LeftOutExample(BaseModel):
    """An example that was left out: its line in the file, and how it begins, without line breaks and control characters."""

    line: int
    text: str
    detail: str = ""


class Counts(BaseModel):
    """What became of some examples; counts are of examples unless they say tokens. left_out, shown: by reason.

    Of conversations, `kept` counts rows, and turns are what is left out.
    """

    examples: int = 0
    kept: int = 0
    turns: int = 0
    left_out: dict[str, int] = dict.fromkeys(REASONS, 0)
    shown: dict[str, list[LeftOutExample]] = {}
    student_tokens: int = 0
    teacher_tokens: int = 0
    longest_student: int = 0
    longest_teacher: int = 0
    aligned: int = 0

    def add(self, other: Counts, line: int) -> None:
        """Count what follows in the file as well, from a line on."""
        for name in ("examples", "kept", "turns", "student_tokens", "teacher_tokens", "aligned"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("longest_student", "longest_teacher"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        for reason, count in other.left_out.items():
            self.left_out[reason] += count
        for reason, shown in other.shown.items():
            moved = (each.model_copy(update={"line": line + each.line}) for each in shown)
            self.shown[reason] = [*self.shown.get(reason, ()), *moved][:SHOWN]

    def leave_out(self, line: int, item: Item, reasons: Mapping[str, str]) -> None:
        """Count what cannot be used of an example, for each reason; the values say more of it in words, or are empty."""
        for reason, detail in reasons.items():
            self.left_out[reason] += 1
            shown = self.shown.setdefault(reason, [])
            if len(shown) < SHOWN:
                shown.append(LeftOutExample(line=line, text=_beginning(item), detail=detail))


def _beginning(item: Item) -> str:
    asked, answered = prompt_and_response(item)
    begins = [text[: 10 * SHOWN_CHARACTERS] for text in (*asked[:1], *answered[:1])]
    text = " ".join(" ".join(begins).split())
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:SHOWN_CHARACTERS])
    return plain[:SHOWN_CHARACTERS]


@dataclass(frozen=True)
class Recipe:
    """What turns blocks of a file into parts, in any process. sides: the student's, and the teacher's where there is one.

    takes: what the models take.
    """

    file: Path
    sides: tuple[Side, ...]
    max_length: int
    takes: Takes
    same_vocabulary: bool

    @cached_property
    def digest(self) -> str:
        """sha256 of all that a part depends on, its block aside: tokenizers, settings, and the code."""
        parts: list[Any] = [self.max_length, self.takes, self.same_vocabulary, _code()]
        parts += [version(library) for library in ("tokenizers", "transformers")]
        for tokenizer in (side.tokenizer for side in self.sides):
            template = template_of(tokenizer)
            parts += [tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map]
            parts += [type(tokenizer).__name__, None if template is None else template.model_dump(mode="json")]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    def name(self, block: Block) -> str:
        """The name of a block's part: another block or another recipe has another one."""
        return f"{block.number:06d}-{hashlib.sha256((self.digest + block.digest).encode()).hexdigest()[:32]}.arrow"

    def part(self, block: Block) -> tuple[pa.Table, Counts]:
        """The rows that a block becomes, and their counts; lines are counted from the block's first. InputError for a bad line."""
        found = list(items_in(self.file, block, self.takes))
        counts = Counts(examples=len(found))
        if any(writes_special_tokens(side.tokenizer) for side in self.sides):
            rows = self._of_turns(found, block, counts)
        else:
            rows = self._of_examples(found, block, counts)
        if not rows:
            return pa.table({}), counts
        counts.kept = len(rows)
        table = table_of(rows)
        counts.student_tokens, counts.longest_student = _lengths(rows, "student")
        if len(self.sides) > 1:
            counts.teacher_tokens, counts.longest_teacher = _lengths(rows, "teacher")
            counts.aligned = len(table["student_pairs"].combine_chunks().values)
        return table, counts

    def _of_examples(self, found: Sequence[tuple[int, Item]], block: Block, counts: Counts) -> list[dict[str, Any]]:
        """Rows of examples, a row each, many at once."""
        examples = [item for _, item in found if isinstance(item, Example)]
        encoded = list(zip(*(encode_batch(examples, side) for side in self.sides), strict=True))
        kept: list[Sequence[Encoded]] = []
        for (line, item), sides in zip(found, encoded, strict=True):
            if reasons := unusable(sides, self.max_length):
                counts.leave_out(line - block.line, item, dict.fromkeys(reasons, ""))
            else:
                kept.append(sides)
        counts.turns += len(kept)
        if not kept:
            return []
        students, *teachers = (list(side) for side in zip(*kept, strict=True))
        return prepared_rows(students, *teachers, same_vocabulary=self.same_vocabulary)

    def _of_turns(self, found: Sequence[tuple[int, Item]], block: Block, counts: Counts) -> list[dict[str, Any]]:
        """Rows of examples and conversations in chat templates, where a row may have several turns."""
        sides = [encoder_of(side.tokenizer, side.vocabulary) for side in self.sides]
        encoder = ConversationEncoder(sides, same_vocabulary=self.same_vocabulary, max_length=self.max_length)
        rows: list[dict[str, Any]] = []
        for line, item in found:
            own, left_out = encoder.rows(item)
            rows += own
            counts.turns += sum(len(label_spans(row, "student")) for row in own)
            for each in left_out:
                counts.leave_out(line - block.line, item, {each.reason: each.detail})
        return rows


def _code() -> str:
    """sha256 of the code that makes parts."""
    digest = hashlib.sha256()
    for folder in ("data", "tokenization"):
        for file in sorted((Path(__file__).parents[1] / folder).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def unusable(sides: Sequence[Encoded | None], max_length: int) -> list[str]:
    """Why an example is left out, in names of the report's counts; empty for one that is not."""
    reasons = []
    for name, side in zip(("student", "teacher"), sides, strict=False):
        if side is None or len(side.ids) <= side.prompt_length:
            return ["not_encodable"]
        if len(side.ids) > max_length:
            reasons.append(f"too_long_{name}")
    return ["special_tokens"] if any(side is not None and side.special for side in sides) else reasons


def _lengths(rows: Sequence[dict[str, Any]], side: str) -> tuple[int, int]:
    """(labels of all, tokens of the longest)."""
    labelled = sum(last - first for row in rows for first, last in label_spans(row, side))
    return labelled, max(len(row[f"{side}_ids"]) for row in rows)


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of numbers and of lists of numbers as a table; lists are int32, which no id and no number of a token exceeds."""
    columns = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(first, int):
            columns[name] = pa.array(values, pa.int64())
            continue
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
        arrays = isinstance(first, np.ndarray)
        flat = np.concatenate(values) if arrays else np.fromiter(chain.from_iterable(values), np.int32, offsets[-1])
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.astype(np.int32, copy=False)))
    return pa.table(columns)


def text_of(table: pa.Table) -> bytes:
    """The rows as `json.dumps` writes them, one after the other with a comma between them."""
    pieces: list[Any] = []
    for name in table.column_names:
        column = table[name].combine_chunks()
        pieces.append(f'{", " if pieces else "{"}"{name}": ')
        if pa.types.is_list(column.type):
            texts = pa.ListArray.from_arrays(column.offsets, compute.cast(column.values, pa.string()))
            pieces += ["[", compute.binary_join(texts, ", "), "]"]
        else:
            pieces.append(compute.cast(column, pa.string()))
    if not pieces:
        return b""
    rows = compute.binary_join_element_wise(*pieces, "}", "")  # the last is what stands between the others
    return ", ".join(rows.to_pylist()).encode()


@contextmanager
def _no_collection() -> Iterator[None]:
    """A block's many lists hold no circles, and looking for some takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def make_part(recipe: Recipe, block: Block, folder: Path) -> None:
    """See that a block's part is in a folder, and beside it the text of its rows, which `take_text` takes away."""
    place = folder / recipe.name(block)
    if place.is_file():
        table, _ = read_part(place)
    else:
        with _no_collection():
            table, counts = recipe.part(block)
        table = table.replace_schema_metadata({_COUNTS: counts.model_dump_json()})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        write_atomic(place, sink.getvalue().to_pybytes())
    place.with_suffix(".text").write_bytes(text_of(table))


def read_part(place: Path) -> tuple[pa.Table, Counts]:
    """A part that is there, read as a whole; lines are counted from the first of its block."""
    with pa.OSFile(str(place)) as file, pa.ipc.open_stream(file) as stream:
        table = stream.read_all()
    return table.replace_schema_metadata(), Counts.model_validate_json(table.schema.metadata[_COUNTS])


def take_text(place: Path) -> bytes:
    """The text of a part's rows, which is removed."""
    file = place.with_suffix(".text")
    text = file.read_bytes()
    file.unlink()
    return text
