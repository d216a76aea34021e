"""Examples in both tokenizations, aligned once; dskd/data/collator.py makes batches of them.

A training file is anything that `load_examples` reads (dskd/data/examples.py). A response is tokenized as it follows its prompt, ends
with the end-of-sequence token, and is what the labels cover.
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

from dskd.data.examples import load_examples
from dskd.data.shapes import Example, Item
from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.alignment import UNKNOWN, align, byte_groups, byte_spans
from dskd.tokenization.prompt_templates import prompt_text, template_of, writes_special_tokens
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary


def _encode(tokenizer: Any, text: str, *, special: bool) -> tuple[list[int], list[tuple[int, int]]]:
    special = special and not writes_special_tokens(tokenizer)
    encoding = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    if special and len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        # A template that writes the begin token, and a tokenizer that adds it: one is enough.
        ids, offsets = ids[1:], offsets[1:]
    while special and ids and ids[-1] == tokenizer.eos_token_id and offsets[-1][0] == offsets[-1][1]:
        ids, offsets = ids[:-1], offsets[:-1]  # an end that the tokenizer appended would end the prompt
    return ids, offsets


def encode_prompt(tokenizer: Any, text: str) -> list[int]:
    """The ids of a prompt, in training and for every engine in evaluation.

    Args:
        tokenizer: The model's tokenizer.
        text: The prompt.

    Returns:
        Ids with a begin token where the tokenizer adds one (Llama, Gemma), without an end token, never cut.
    """
    return _encode(tokenizer, text, special=True)[0]


def encode_example(
    tokenizer: Any, vocabulary: Vocabulary, example: Example
) -> tuple[list[int], list[int], np.ndarray] | None:
    """(ids of `encode_prompt`, and what `encode_response` gives); None where no tokens stand for exactly the response."""
    text = prompt_text(tokenizer, example.prompt)
    prompt = encode_prompt(tokenizer, text)
    encoded = encode_response(tokenizer, vocabulary, prompt, text, example.response)
    return None if encoded is None else (prompt, *encoded)


def encode_response(
    tokenizer: Any, vocabulary: Vocabulary, prompt: list[int], prompt_text: str | None, response: str
) -> tuple[list[int], np.ndarray] | None:
    """(response ids, the bytes of the response that each covers [tokens, 2]) as the response follows its prompt, no end token yet.

    Where the two would share a token (a newline that merges with the next), or the prompt's text is not known, the response is
    tokenized by itself. None where no tokens stand for exactly the response.
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
        if b"".join(vocabulary.token_bytes[k] for k in ids) == response.encode():
            return ids, byte_spans(vocabulary, ids, response)
    return None


def text_of_prompt(tokenizer: Any, vocabulary: Vocabulary, prompt: list[int]) -> str | None:
    """A text that `encode_prompt` makes into these ids; None where none is found, as after a normaliser."""
    begin = 1 if prompt and prompt[0] == tokenizer.bos_token_id else 0
    for first in dict.fromkeys((begin, 0)):  # a begin token that the tokenizer adds by itself is no part of the text
        try:
            text = b"".join(vocabulary.token_bytes[k] for k in prompt[first:]).decode()
        except UnicodeDecodeError:
            return None
        for candidate in dict.fromkeys((text.removeprefix(" "), text)):  # SentencePiece puts a space before a text
            if encode_prompt(tokenizer, candidate) == prompt:
                return candidate
    return None


def has_templates(*tokenizers: Any) -> bool:
    """Whether these models are given instructions in templates; InputError where some are and some are not."""
    with_template = [template_of(tokenizer) is not None for tokenizer in tokenizers]
    if any(with_template) and not all(with_template):
        have, lack = (tokenizers[with_template.index(which)].name_or_path for which in (True, False))
        raise InputError(
            f"{have} has a prompt template and {lack} has none, so no data suits both; fix: give each a template, or neither"
        )
    return all(with_template)


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


def _encode_whole(tokenizer: Any, vocabulary: Vocabulary, example: Item) -> Encoded | None:
    if not isinstance(example, Example):
        raise InputError(
            f"{tokenizer.name_or_path}: conversations cannot be prepared; fix: give instructions with outputs"
        )
    encoded = encode_example(tokenizer, vocabulary, example)
    if encoded is None:
        return None
    prompt, response, spans = encoded
    # Without a prompt and a begin token nothing predicts the first token, so it cannot be a label.
    unlabelled = 0 if prompt else 1
    special = not vocabulary.special_ids.isdisjoint(response)
    return Encoded([*prompt, *response, tokenizer.eos_token_id], len(prompt) + unlabelled, spans[unlabelled:], special)


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
        sides = [_encode_whole(t, v, example) for t, v in zip(tokenizers, vocabularies, strict=True)]
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
