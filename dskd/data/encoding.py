"""What one example becomes in the tokens of one model or two.

A response is tokenized as it follows its prompt, ends with the end-of-sequence token, and is what the labels cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dskd.data.shapes import Example
from dskd.errors import InputError
from dskd.tokenization.alignment import UNKNOWN, align, byte_groups, byte_spans
from dskd.tokenization.prompt_templates import prompt_text, template_of, writes_special_tokens
from dskd.tokenization.vocabulary import Vocabulary

# Teacher's and student's int64 arrays.
Sides = tuple[np.ndarray, np.ndarray]


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


@dataclass(frozen=True)
class Encoded:
    """An example in the tokens of one model. `spans`: the bytes of the response that each label covers, its end left out."""

    ids: list[int]
    prompt_length: int  # tokens that are not labels
    spans: np.ndarray  # int64 [labels without the end, 2]
    special: bool = False  # whether the response spells a special token
    ended: bool = True  # whether the last token is the end of sequence; not where a sample was cut
    written: str = ""  # the response, where the two models may write it differently
    pieces: tuple[tuple[str, str, int], ...] = ()  # (name, text, first byte) of what they write alike in it

    @property
    def labels(self) -> list[int]:
        return self.ids[self.prompt_length :]


def encode_whole(tokenizer: Any, vocabulary: Vocabulary, example: Example) -> Encoded | None:
    """An example with its end; None where no tokens stand for exactly the response."""
    encoded = encode_example(tokenizer, vocabulary, example)
    return None if encoded is None else with_end(vocabulary, tokenizer.eos_token_id, *encoded)


def with_end(vocabulary: Vocabulary, end: int, prompt: list[int], response: list[int], spans: np.ndarray) -> Encoded:
    """A prompt, a response with the bytes that each of its tokens covers, and the id of the end of sequence."""
    # Without a prompt and a begin token nothing predicts the first token, so it cannot be a label.
    unlabelled = 0 if prompt else 1
    special = not vocabulary.special_ids.isdisjoint(response)
    return Encoded([*prompt, *response, end], len(prompt) + unlabelled, spans[unlabelled:], special)


def prepared_row(student: Encoded, teacher: Encoded | None = None, *, same_vocabulary: bool = False) -> dict[str, Any]:
    """One row of a prepared dataset: ids, and with a teacher which tokens of the two belong together."""
    aligned = None
    if teacher is not None and not (same_vocabulary and student.labels == teacher.labels):
        spans = common_spans(teacher, student)
        aligned = align(*spans), byte_groups(*spans)
    row = assembled_row(student, teacher, aligned)
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}


def common_spans(teacher: Encoded, student: Encoded) -> Sides:
    """The spans of both sides in bytes of one text: the response, or the pieces of it that both write alike."""
    if teacher.written == student.written:
        return teacher.spans, student.spans
    return _in_pieces(teacher, student), _in_pieces(student, teacher)


def _in_pieces(side: Encoded, other: Encoded) -> np.ndarray:
    """The spans of a side's labels counted in the pieces that both sides write alike; (-1, -1) for a token outside them.

    A space or line break beside a piece counts to it, as tokens often begin or end with one.
    """
    data, texts = side.written.encode(), {name: text for name, text, _ in other.pieces}
    found = np.full_like(side.spans, UNKNOWN)
    place = 0
    for name, text, start in side.pieces:
        if texts.get(name) != text:
            continue
        end = start + len(text.encode())
        for k, (first, last) in enumerate(side.spans.tolist()):
            inside = first != UNKNOWN and last > start and first < end
            if inside and not data[first:start].strip() and not data[end:last].strip():
                found[k] = place + max(first - start, 0), place + min(last, end) - start
        place += end - start
    return found


def assembled_row(
    student: Encoded, teacher: Encoded | None = None, aligned: tuple[Sides, Sides] | None = None
) -> dict[str, Any]:
    """A row with arrays for what is aligned: (pairs, groups) of the labels; None where they are the same token by token."""
    row: dict[str, Any] = {"student_ids": student.ids, "student_prompt_length": student.prompt_length}
    if teacher is None:
        return row
    if aligned is None:  # of one vocabulary; also where a normaliser leaves a token without a place in the text
        same = np.arange(len(teacher.spans)), np.arange(len(student.spans))
        aligned = same, same
    pairs, groups = aligned
    row |= {"teacher_ids": teacher.ids, "teacher_prompt_length": teacher.prompt_length}
    last = 1 + max(int(side.max(initial=UNKNOWN)) for side in groups)  # of the two end tokens
    sides = ("teacher", teacher), ("student", student)
    row |= {f"{name}_pairs": _ended(pairs[k], side, len(side.spans)) for k, (name, side) in enumerate(sides)}
    return row | {f"{name}_groups": _ended(groups[k], side, last) for k, (name, side) in enumerate(sides)}


def _ended(numbers: np.ndarray, side: Encoded, end: int) -> np.ndarray:
    """The numbers, and that of the end token where there is one."""
    if not side.ended:
        return numbers
    ended = np.empty(len(numbers) + 1, dtype=np.int64)
    ended[:-1], ended[-1] = numbers, end
    return ended
