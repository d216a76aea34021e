"""The texts on which two models are compared, in the tokens of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dskd.data.encoding import Encoded, encode_prompt, encode_response, prepared_row, with_end
from dskd.io import has_half_a_pair
from dskd.tokenization.vocabulary import Vocabulary

# Why a text is left out.
NO_RESPONSE, NOT_ENCODABLE, SPECIAL = "no text", "no tokens stand for exactly the text", "spells a special token"
TOO_LONG = "longer than a model's positions"


@dataclass(frozen=True)
class Text:
    """A response after a prompt.

    Attributes:
        student_prompt, teacher_prompt: What each model is given, in its own template; the teacher's is not read without a teacher.
        response: The same bytes for both.
        ended: Whether the response is whole: then the distributions after its last token count, too.
    """

    student_prompt: str
    teacher_prompt: str
    response: str
    ended: bool = True


@dataclass(frozen=True)
class Row:
    """A text in tokens.

    Attributes:
        number: Of the text.
        columns: As of a prepared dataset: ids, prompt lengths and, with a teacher, pairs.
        bytes: Of the response.
        student_tokens, teacher_tokens: Labels that stand for bytes of the response, its end left out; 0 without a teacher.
    """

    number: int
    columns: dict[str, Any]
    bytes: int
    student_tokens: int
    teacher_tokens: int

    @property
    def length(self) -> int:
        """Tokens of the longer side."""
        return max(len(self.columns["student_ids"]), len(self.columns.get("teacher_ids", ())))


def encode_text(
    tokenizer: Any, vocabulary: Vocabulary, prompt: str, response: str, *, ended: bool = True
) -> Encoded | str:
    """A response after a prompt in a model's tokens, with the end of sequence where it is whole; or why it is left out."""
    if not response:
        return NO_RESPONSE
    if has_half_a_pair(response):
        return NOT_ENCODABLE
    ids = encode_prompt(tokenizer, prompt)
    found = encode_response(tokenizer, vocabulary, ids, prompt, response) if ids else None
    if found is None or not found[0]:
        return NOT_ENCODABLE
    if not vocabulary.special_ids.isdisjoint(found[0]):
        return SPECIAL
    if not ended:
        return Encoded([*ids, *found[0]], len(ids), found[1], ended=False)
    return with_end(vocabulary, tokenizer.eos_token_id, ids, *found)


@dataclass(frozen=True)
class Reader:
    """A model's tokens: its tokenizer, the whole vocabulary, and the tokens of the longest text that it reads, where that is known."""

    tokenizer: Any
    vocabulary: Vocabulary
    positions: int | None = None

    def read(self, prompt: str, text: Text) -> Encoded | str:
        """The text in this model's tokens, or why it is left out."""
        found = encode_text(self.tokenizer, self.vocabulary, prompt, text.response, ended=text.ended)
        if isinstance(found, Encoded) and self.positions is not None and len(found.ids) > self.positions:
            return TOO_LONG
        return found


def encode_all(
    texts: Sequence[Text], student: Reader, teacher: Reader | None, *, same_vocabulary: bool
) -> tuple[list[Row], dict[int, str]]:
    """(the texts in tokens, by number why a text is left out)."""
    rows: list[Row] = []
    left_out: dict[int, str] = {}
    for number, text in enumerate(texts):
        own = student.read(text.student_prompt, text)
        other = None if teacher is None else teacher.read(text.teacher_prompt, text)
        if isinstance(own, str):
            left_out[number] = own
        elif isinstance(other, str):
            left_out[number] = other
        else:
            columns = prepared_row(own, other, same_vocabulary=same_vocabulary)
            counts = len(own.spans), 0 if other is None else len(other.spans)
            rows.append(Row(number, columns, len(text.response.encode()), *counts))
    return rows, left_out


def digest_of(texts: Sequence[Text], *more: Any) -> str:
    """sha256 of texts and what else a measurement depends on."""
    content = json.dumps([[asdict(text) for text in texts], *more], default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
