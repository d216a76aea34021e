"""Samples as rows of a prepared dataset: the student's text in the tokens of both models, or why it cannot be a response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dskd.data.encoding import Encoded, encode_response, prepared_row, text_of_prompt
from dskd.data.rows import last_prompt_length
from dskd.rollouts.sampler import Sample
from dskd.tokenization.vocabulary import Vocabulary

# Why a sample is not used. `no prompt`: at most a single token stands before the labels, and without a begin token nobody knows
# whether that is a prompt or the response's first token; nothing is sampled then.
REASONS = ("no prompt", "not text", "special token", "not encodable", "too long")


@dataclass(frozen=True)
class ModelText:
    """How one of the two models reads text. positions: the longest example that it takes; None without a limit."""

    tokenizer: Any
    vocabulary: Vocabulary
    positions: int | None = None

    def encoded(self, prompt: list[int], response: list[int], spans: np.ndarray, ended: bool) -> Encoded:
        ids = [*prompt, *response, *[self.tokenizer.eos_token_id] * ended]
        return Encoded(ids, len(prompt), spans, ended=ended)


def row_of_sample(
    row: dict[str, Any], sample: Sample, student: ModelText, teacher: ModelText, *, same_vocabulary: bool
) -> tuple[str, dict[str, Any] | str]:
    """A row with a sample as its response.

    Args:
        row: Of a prepared dataset.
        sample: What the student wrote after its prompt.
        student, teacher: How the two models read text.
        same_vocabulary: Whether their vocabularies are one.

    Returns:
        (the sample's text, the row, or the reason why the sample cannot be one).
    """
    vocabulary = student.vocabulary
    ids = sample.ids[: len(sample.ids) - sample.ended]
    if not vocabulary.special_ids.isdisjoint(ids):
        return _text(vocabulary, ids), "special token"
    if not sample.ended and not same_vocabulary:
        ids = whole_characters(vocabulary, ids)
    text = _text(vocabulary, ids)
    prompt = list(row["student_ids"][: last_prompt_length(row, "student")])
    own = student.encoded(prompt, ids, _spans(vocabulary, ids), sample.ended)
    prompt = list(row["teacher_ids"][: last_prompt_length(row, "teacher")])
    if same_vocabulary:
        # The very tokens that the student wrote, which need not be those that its tokenizer makes of the text.
        response, spans = ids, own.spans
    else:
        if text.encode() != b"".join(vocabulary.token_bytes[k] for k in ids):
            return text, "not text"
        reader = teacher.tokenizer, teacher.vocabulary
        encoded = encode_response(*reader, prompt, text_of_prompt(*reader, prompt), text)
        if encoded is None:
            return text, "not encodable"
        response, spans = encoded
        if not teacher.vocabulary.special_ids.isdisjoint(response):
            return text, "special token"
    of_teacher = teacher.encoded(prompt, response, spans, sample.ended)
    if not own.labels or not of_teacher.labels:
        return text, "not text"
    for encoded_side, side in ((own, student), (of_teacher, teacher)):
        if side.positions is not None and len(encoded_side.ids) > side.positions:
            return text, "too long"
    return text, prepared_row(own, of_teacher, same_vocabulary=same_vocabulary)


def has_prompt(row: dict[str, Any], student: ModelText, teacher: ModelText) -> bool:
    """Whether the tokens before the labels are a prompt; without one, the first of the response stands there."""
    return all(
        last_prompt_length(row, name) > 1 or row[f"{name}_ids"][0] in side.vocabulary.special_ids
        for name, side in (("student", student), ("teacher", teacher))
    )


def _text(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    return b"".join(vocabulary.token_bytes[k] for k in ids).decode(errors="replace")


def whole_characters(vocabulary: Vocabulary, ids: list[int]) -> list[int]:
    """Without the last tokens where those, and only those, are the beginning of a character that was cut."""
    for dropped in range(min(4, len(ids))):  # a character has at most four bytes
        kept = ids[: len(ids) - dropped]
        try:
            b"".join(vocabulary.token_bytes[k] for k in kept).decode()
        except UnicodeDecodeError:
            continue
        return kept
    return ids


def _spans(vocabulary: Vocabulary, ids: Sequence[int]) -> np.ndarray:
    """The bytes that each token covers of the text that the tokens are, int64 [tokens, 2]."""
    ends = np.cumsum([0, *(len(vocabulary.token_bytes[k]) for k in ids)], dtype=np.int64)
    return np.stack([ends[:-1], ends[1:]], axis=1)
