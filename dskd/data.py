"""Examples in both tokenizations, aligned once, and the batches made of them.

A training file holds one JSON object a line with `prompt` and `output`. A response is tokenized as it follows its prompt, ends with
the end-of-sequence token, and is what the labels cover. Both models get the same text; each in its own tokens.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from dskd.alignment import UNKNOWN, align, byte_groups, byte_spans
from dskd.errors import InputError
from dskd.jsonl import read_objects
from dskd.models import load_tokenizer
from dskd.string_alignment import align_strings
from dskd.vocabulary import Vocabulary, share_vocabulary


@dataclass(frozen=True)
class Example:
    """A prompt as the model sees it, template included, and the response to it."""

    prompt: str
    response: str


def load_examples(path: Path) -> list[Example]:
    """Read a training file. Raises InputError for a missing or empty file and for a line that is no example, with its number."""
    examples = []
    for number, row in read_objects(path):
        if not all(isinstance(row.get(key), str) for key in ("prompt", "output")):
            raise InputError(f"{path}:{number}: prompt and output must be strings; fix: add the missing key")
        if not row["output"]:
            raise InputError(f"{path}:{number}: output is empty; fix: remove the line or give the response")
        examples.append(Example(row["prompt"], row["output"]))
    return examples


def _encode(tokenizer: Any, text: str, *, special: bool) -> tuple[list[int], list[tuple[int, int]]]:
    encoding = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    if special and len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        # A template that writes the begin token, and a tokenizer that adds it: one is enough.
        ids, offsets = ids[1:], offsets[1:]
    while special and ids and ids[-1] == tokenizer.eos_token_id and offsets[-1][0] == offsets[-1][1]:
        ids, offsets = ids[:-1], offsets[:-1]  # an end that the tokenizer appended would end the prompt
    return ids, offsets


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """The ids that a model is given for a prompt, in training and by every engine in evaluation.

    A begin token where the tokenizer itself adds one (Llama, Gemma; the published code drops it), never an end token. Not cut.
    """
    return _encode(tokenizer, text, special=True)[0]


def encode_example(
    tokenizer: Any, vocabulary: Vocabulary, example: Example
) -> tuple[list[int], list[int], np.ndarray] | None:
    """(prompt ids, response ids, the bytes of the response that each response id covers [tokens, 2]), no end token yet.

    The prompt's ids are those of `encode_prompt`, so training and generation agree; the response's are those of `encode_response`.
    None where no tokens stand for exactly the response.
    """
    prompt = encode_prompt(tokenizer, example.prompt)
    encoded = encode_response(tokenizer, vocabulary, prompt, example.prompt, example.response)
    return None if encoded is None else (prompt, *encoded)


def encode_response(
    tokenizer: Any, vocabulary: Vocabulary, prompt: list[int], prompt_text: str | None, response: str
) -> tuple[list[int], np.ndarray] | None:
    """(response ids, the bytes of the response that each covers [tokens, 2]) as the response follows its prompt, no end token yet.

    Where prompt and response would share a token (a newline that merges with the next), or the prompt's text is not known, the
    response is tokenized by itself, without the space that SentencePiece puts before a text. None where no tokens stand for exactly
    the response.
    """
    if prompt_text is not None:
        joint, offsets = _encode(tokenizer, prompt_text + response, special=True)
        if joint[: len(prompt)] == prompt:
            shift = len(prompt_text)
            rest = [(max(first - shift, 0), max(last - shift, 0)) for first, last in offsets[len(prompt) :]]
            return joint[len(prompt) :], byte_spans(vocabulary, joint[len(prompt) :], response, rest)
    for anchor in ("", "\n", "."):
        ids, offsets = _encode(tokenizer, anchor + response, special=False)
        kept = [k for k, (_, last) in enumerate(offsets) if last > len(anchor)]
        ids = ids[kept[0] :] if kept else []
        if b"".join(vocabulary.written[k] for k in ids) == response.encode():
            return ids, byte_spans(vocabulary, ids, response)
    return None


def text_of_prompt(tokenizer: Any, vocabulary: Vocabulary, prompt: list[int]) -> str | None:
    """A text that `encode_prompt` makes into these ids; None where none is found, as after a normaliser."""
    begin = 1 if prompt and prompt[0] == tokenizer.bos_token_id else 0
    for first in dict.fromkeys((begin, 0)):  # a begin token that the tokenizer adds by itself is no part of the text
        try:
            text = b"".join(vocabulary.written[k] for k in prompt[first:]).decode()
        except UnicodeDecodeError:
            return None
        for candidate in dict.fromkeys((text.removeprefix(" "), text)):  # SentencePiece puts a space before a text
            if encode_prompt(tokenizer, candidate) == prompt:
                return candidate
    return None


class PreparationReport(BaseModel):
    """What became of a training file; counts are of examples unless they say tokens.

    too_long_student, too_long_teacher: left out because prompt, response and end do not fit into max_length, nothing is ever cut.
    not_encodable: left out because no tokens of one tokenizer stand for exactly the response.
    special_tokens: left out because the response spells a special token, which would be learned as a command in mid-sentence.
    content: sha256 of the prepared rows, so that a run's folder can tell its own data from other.
    *_vocabulary: fingerprints of the vocabularies that the data was prepared with.
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


@dataclass(frozen=True)
class Encoded:
    """An example in the tokens of one model. `spans`: the bytes of the response that each label covers, its end left out."""

    ids: list[int]
    prompt_length: int  # tokens that are not labels
    spans: np.ndarray  # int64 [labels without the end, 2]
    special: bool = False  # whether the response spells a special token
    ended: bool = True  # whether the last token is the end of sequence; not where a sample was cut

    @property
    def labels(self) -> list[int]:
        return self.ids[self.prompt_length :]


def _encode_whole(tokenizer: Any, vocabulary: Vocabulary, example: Example) -> Encoded | None:
    encoded = encode_example(tokenizer, vocabulary, example)
    if encoded is None:
        return None
    prompt, response, spans = encoded
    # Without a prompt and a begin token nothing predicts the first token, so it cannot be a label.
    unlabelled = 0 if prompt else 1
    special = not vocabulary.special_ids.isdisjoint(response)
    return Encoded([*prompt, *response, tokenizer.eos_token_id], len(prompt) + unlabelled, spans[unlabelled:], special)


def published_pairs(student: Encoded, teacher: Encoded, tokenizers: Sequence[Any]) -> dict[str, list[int]]:
    """The pairs of labels as the published code finds them (dskd/string_alignment.py); tokenizers of student and teacher."""
    spelt = [t.convert_ids_to_tokens(side.labels) for t, side in zip(tokenizers, (student, teacher), strict=True)]
    pairs = align_strings(spelt[1], spelt[0], ends=(tokenizers[1].eos_token, tokenizers[0].eos_token))
    return {f"{name}_string_pairs": side.tolist() for name, side in zip(("teacher", "student"), pairs, strict=True)}


def prepared_row(student: Encoded, teacher: Encoded | None = None, *, same_vocabulary: bool = False) -> dict[str, Any]:
    """One row of a prepared dataset: ids, and with a teacher which tokens of the two belong together."""
    row: dict[str, Any] = {"student_ids": student.ids, "student_prompt_length": student.prompt_length}
    if teacher is None:
        return row
    if same_vocabulary and student.labels == teacher.labels:
        # Token by token the same, also where a normaliser leaves a token without a place in the text.
        pairs = groups = (np.arange(len(teacher.spans)), np.arange(len(student.spans)))
    else:
        pairs = align(teacher.spans, student.spans)
        groups = byte_groups(teacher.spans, student.spans)
    row |= {"teacher_ids": teacher.ids, "teacher_prompt_length": teacher.prompt_length}
    last = 1 + max(int(side.max(initial=UNKNOWN)) for side in groups)  # of the two end tokens
    sides = ("teacher", teacher), ("student", student)
    row |= {f"{name}_pairs": pairs[k].tolist() + [len(s.spans)] * s.ended for k, (name, s) in enumerate(sides)}
    return row | {f"{name}_groups": groups[k].tolist() + [last] * s.ended for k, (name, s) in enumerate(sides)}


def prepare_dataset(
    examples: Path,
    output: Path,
    *,
    student: Path,
    teacher: Path | None = None,
    max_length: int = 512,
    limit: int | None = None,
) -> PreparationReport:
    """Tokenize a training file for a student and, with a teacher, for both, and align the two; write the result to `output`.

    `output` becomes a `datasets` folder with report.json. `limit` keeps the first examples. Raises
    InputError for unusable input and where no example is left.
    """
    import datasets

    rows = load_examples(examples)[:limit]
    tokenizers = [load_tokenizer(folder) for folder in (student, teacher) if folder is not None]
    vocabularies = [Vocabulary.from_tokenizer(tokenizer) for tokenizer in tokenizers]
    counts = dict.fromkeys(("too_long_student", "too_long_teacher", "not_encodable", "special_tokens"), 0)
    tokens = [0, 0]
    longest = [0, 0]
    aligned = 0
    shared = share_vocabulary(vocabularies[1], vocabularies[0]) if teacher is not None else None
    prepared: list[dict[str, Any]] = []
    for example in rows:
        sides = [_encode_whole(t, v, example) for t, v in zip(tokenizers, vocabularies, strict=True)]
        if any(side is None or len(side.ids) <= side.prompt_length for side in sides):
            counts["not_encodable"] += 1
            continue
        kept = [side for side in sides if side is not None]
        if any(side.special for side in kept):
            counts["special_tokens"] += 1
            continue
        too_long = [
            name for name, side in zip(("student", "teacher"), kept, strict=False) if len(side.ids) > max_length
        ]
        for name in too_long:
            counts[f"too_long_{name}"] += 1
        if too_long:
            continue
        row = prepared_row(*kept, same_vocabulary=shared is not None and shared.same)
        if teacher is not None:
            row |= published_pairs(kept[0], kept[1], tokenizers)
        aligned += len(row.get("student_pairs", ()))
        for k, side in enumerate(kept):
            tokens[k] += len(side.labels)
            longest[k] = max(longest[k], len(side.ids))
        prepared.append(row)
    if not prepared:
        long = counts["too_long_student"] or counts["too_long_teacher"]
        fix = f"raise max_length above {max_length}" if long else "change the responses"
        raise InputError(f"{examples}: none of {len(rows)} examples can be used ({_reasons(counts)}); fix: {fix}")
    report = PreparationReport(
        examples=len(rows),
        kept=len(prepared),
        **counts,
        content=hashlib.sha256(json.dumps(prepared).encode()).hexdigest(),
        max_length=max_length,
        longest_student=longest[0],
        longest_teacher=longest[1],
        student_vocabulary=vocabularies[0].fingerprint,
        teacher_vocabulary=vocabularies[1].fingerprint if teacher is not None else None,
        student_tokens=tokens[0],
        teacher_tokens=tokens[1],
        aligned=aligned,
        aligned_share=aligned / tokens[0] if shared is not None else None,
        shared_vocabulary=len(shared) if shared is not None else None,
        same_vocabulary=shared.same if shared is not None else None,
    )
    datasets.Dataset.from_list(prepared).save_to_disk(output)
    (output / "report.json").write_text(report.model_dump_json(indent=2) + "\n")
    return report


def preparation_report(data: Path) -> dict[str, Any]:
    """What `prepare_dataset` wrote beside the rows. Raises InputError where it did not."""
    if not (data / "report.json").is_file():
        raise InputError(f"{data}: no prepared dataset; fix: make it with dskd.data.prepare_dataset")
    return json.loads((data / "report.json").read_text(encoding="utf-8"))


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())


NEGLIGIBLE_PADDING = 0.02


@dataclass(frozen=True)
class _Layout:
    """Where each example of a batch stands: its row and first column, in a tensor of `rows` times `width`."""

    rows: int
    width: int
    places: list[tuple[int, int]]


def _padded(lengths: Sequence[int], padding_side: str) -> _Layout:
    """One example a row, every row as wide as the longest."""
    width = max(lengths)
    return _Layout(
        len(lengths), width, [(k, width - n if padding_side == "left" else 0) for k, n in enumerate(lengths)]
    )


def _packed(lengths: Sequence[int], row_length: int) -> _Layout:
    """Several examples a row, rows nearly equally long and of about `row_length`. No example is split.

    Each example, longest first, goes to the row that is the shortest so far (longest processing time). Of the numbers of rows that
    make them one to one and a half times row_length, the first with hardly any padding is taken, or the one with the least; larger
    numbers are tried first, for short rows cost attention less.
    """
    total, order = sum(lengths), sorted(range(len(lengths)), key=lambda k: -lengths[k])
    layouts: list[_Layout] = []
    for rows in range(min(total // row_length + 1, len(lengths)), 0, -1):
        if layouts and rows * row_length * 3 < total * 2:
            break
        shortest = [(0, row) for row in range(rows)]
        places = [(0, 0)] * len(lengths)
        for k in order:
            used, row = shortest[0]
            places[k] = row, used
            heapq.heapreplace(shortest, (used + lengths[k], row))
        layouts.append(_Layout(rows, max(shortest)[0], places))
        if rows * layouts[-1].width * (1 - NEGLIGIBLE_PADDING) <= total:
            break
    return min(layouts, key=lambda layout: layout.rows * layout.width)


def _side(
    rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int], layout: _Layout, packed: bool
) -> dict[str, Any]:
    """input_ids, position_ids and, unless packed, attention_mask [rows, width]; labelled and labels [tokens]; size, a count.

    The hidden state at flat position labelled[t] is to predict labels[t]; t runs through the examples in the order given.
    """
    shape = layout.rows, layout.width
    ids = np.zeros(shape, dtype=np.int64)  # padding may be any id: nothing attends to it and nothing labels it
    mask = np.zeros(shape, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    labelled, labels = [], []
    for values, start, (row, column) in zip(rows, prompt_lengths, layout.places, strict=True):
        end = column + len(values)
        ids[row, column:end] = values
        mask[row, column:end] = 1
        # Each example counts from 0: models with absolute positions would count what stands before it.
        positions[row, column:end] = np.arange(len(values))
        first = row * layout.width + column
        labelled.append(np.arange(first + start - 1, first + len(values) - 1))
        labels.append(np.asarray(values[start:], dtype=np.int64))
    if packed:
        # What is left at a row's end is an example of its own, so that it keeps out of the last one's attention.
        for row, used in enumerate(mask.sum(1).tolist()):
            positions[row, used:] = np.arange(layout.width - used)
    side = {"input_ids": ids, "position_ids": positions}
    if not packed:
        side["attention_mask"] = mask
    side |= {"labelled": np.concatenate(labelled), "labels": np.concatenate(labels)}
    return {name: torch.from_numpy(value) for name, value in side.items()} | {"size": torch.tensor(sum(map(len, rows)))}


# Of a row that a rollout may have taken the place of: whether it did.
SAMPLED = "sampled"


@dataclass
class Collator:
    """Rows of a prepared dataset to a batch, keys `student_*` and, with a teacher, `teacher_*`.

    Labelled positions are numbered through the batch example by example, so pairs point at the same tokens whatever the layout.
    Padded, each example is a row and an attention mask covers it. Packed, each side's rows hold several examples (docs/batches.md)
    and there is no mask: position ids that begin again at 0 tell transformers where the next one starts. `row_length` is about
    the length of a packed row, by default the longest example's. Where rows say whether they were sampled (dskd/rollouts.py),
    student_sampled [tokens] says so of each label.
    """

    padding_side: str = "right"
    packing: bool = False
    row_length: int | None = None

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = {}
        for name in ("student", "teacher"):
            if f"{name}_ids" not in rows[0]:
                continue
            ids = [row[f"{name}_ids"] for row in rows]
            starts = [row[f"{name}_prompt_length"] for row in rows]
            lengths = list(map(len, ids))
            layout = self._layout(lengths)
            batch |= {f"{name}_{key}": value for key, value in _side(ids, starts, layout, self.packing).items()}
            if f"{name}_pairs" in rows[0]:
                first = np.cumsum([0] + [length - start for length, start in zip(lengths, starts, strict=True)])
                for key in (f"{name}_pairs", f"{name}_string_pairs"):
                    if key in rows[0]:
                        pairs = [first[k] + np.asarray(row[key], dtype=np.int64) for k, row in enumerate(rows)]
                        batch[key] = torch.from_numpy(np.concatenate(pairs))
                batch[f"{name}_sizes"] = torch.from_numpy(np.diff(first))
            if f"{name}_groups" in rows[0]:
                batch[f"{name}_groups"] = torch.from_numpy(_numbered([row[f"{name}_groups"] for row in rows]))
            if name == "student" and SAMPLED in rows[0]:
                flags = torch.tensor([row[SAMPLED] for row in rows])
                batch["student_sampled"] = flags.repeat_interleave(
                    torch.tensor([length - start for length, start in zip(lengths, starts, strict=True)])
                )
        if "teacher_pairs" in batch:
            batch |= pairs_by_position(batch["teacher_sizes"], batch["student_sizes"])
        if "teacher_row" in rows[0]:
            batch["teacher_rows"] = torch.tensor([row["teacher_row"] for row in rows])
        return batch

    def _layout(self, lengths: Sequence[int]) -> _Layout:
        if self.packing:
            return _packed(lengths, self.row_length or max(lengths))
        return _padded(lengths, self.padding_side)


def _numbered(groups: Sequence[Sequence[int]]) -> np.ndarray:
    """The groups of each example, numbered on through the batch; the two sides of an example have the same number of them."""
    shifted = []
    first = 0
    for example in groups:
        numbers = np.asarray(example, dtype=np.int64)
        shifted.append(np.where(numbers == UNKNOWN, UNKNOWN, numbers + first))
        first += int(numbers.max(initial=UNKNOWN)) + 1
    return np.concatenate(shifted)


def pairs_by_position(teacher_sizes: Tensor, student_sizes: Tensor) -> dict[str, Tensor]:
    """The k-th labelled token of an example paired with the other model's k-th, as far as both have one."""
    common = torch.minimum(teacher_sizes, student_sizes)
    within = torch.arange(int(common.sum())) - (common.cumsum(0) - common).repeat_interleave(common)
    return {
        f"{name}_position_pairs": (sizes.cumsum(0) - sizes).repeat_interleave(common) + within
        for name, sizes in (("teacher", teacher_sizes), ("student", student_sizes))
    }
