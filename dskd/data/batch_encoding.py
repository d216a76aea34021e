"""Many examples at once: what `encode_whole` and `prepared_row` give for each, at a fraction of the calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from dskd.data.encoding import Encoded, Example, assembled_row, common_spans, encode_response, with_end
from dskd.tokenization.alignment import byte_spans
from dskd.tokenization.batch_alignment import align_many
from dskd.tokenization.prompt_templates import prompt_text, writes_special_tokens
from dskd.tokenization.vocabulary import Vocabulary
from dskd.tokenization.word_cuts import WordCuts

AT_ONCE = 256  # texts whose tokens the tokenizers library holds with their strings and offsets


@dataclass(frozen=True)
class Side:
    """What encodes the text of one model."""

    tokenizer: Any
    vocabulary: Vocabulary
    cuts: WordCuts | None

    @classmethod
    def of(cls, tokenizer: Any) -> Side:
        """That of a fast Hugging Face tokenizer; InputError for others."""
        return cls(tokenizer, Vocabulary.from_tokenizer(tokenizer), WordCuts.of(tokenizer))


def encode_batch(examples: Sequence[Example], side: Side) -> list[Encoded | None]:
    """What `encode_whole` gives for each example; None where no tokens stand for exactly the response."""
    found: list[Encoded | None] = []
    for first in range(0, len(examples), AT_ONCE):
        found += _encode(examples[first : first + AT_ONCE], side)
    return found


def _encode(examples: Sequence[Example], side: Side) -> list[Encoded | None]:
    tokenizer, vocabulary, end = side.tokenizer, side.vocabulary, side.tokenizer.eos_token_id
    texts = [prompt_text(tokenizer, example.prompt) for example in examples]
    responses = [example.response for example in examples]
    special = not writes_special_tokens(tokenizer)
    joint = _Tokenized.of(
        tokenizer, [text + response for text, response in zip(texts, responses, strict=True)], special
    )
    prompts = _prompts(side, texts, joint, special)
    following = [k for k, prompt in enumerate(prompts) if joint.ids[k][: len(prompt)] == prompt]
    rest = [joint.ids[k][len(prompts[k]) :] for k in following]
    spans = exact_spans(vocabulary, rest, [responses[k] for k in following])
    found: list[Encoded | None] = [None] * len(examples)
    for k, ids, covered in zip(following, rest, spans, strict=True):
        if covered is None:  # a tokenizer that normalises says itself which characters a token covers
            shift, offsets = len(texts[k]), joint.offsets(k)[len(prompts[k]) :]
            moved = [(max(first - shift, 0), max(last - shift, 0)) for first, last in offsets]
            covered = byte_spans(vocabulary, ids, responses[k], moved)
        found[k] = with_end(vocabulary, end, prompts[k], ids, covered)
    for k in sorted(set(range(len(examples))).difference(following)):  # prompt and response would share a token
        if (apart := encode_response(tokenizer, vocabulary, prompts[k], None, responses[k])) is not None:
            found[k] = with_end(vocabulary, end, prompts[k], *apart)
    return found


def prepared_rows(
    students: Sequence[Encoded], teachers: Sequence[Encoded] | None = None, *, same_vocabulary: bool = False
) -> list[dict[str, Any]]:
    """What `prepared_row` gives for each example, with arrays in the place of lists that are aligned."""
    if teachers is None:
        return [assembled_row(student) for student in students]
    both = list(zip(students, teachers, strict=True))
    parted = [k for k, (one, other) in enumerate(both) if not (same_vocabulary and one.labels == other.labels)]
    spans = [common_spans(teachers[k], students[k]) for k in parted]
    aligned = align_many([teacher for teacher, _ in spans], [student for _, student in spans])
    found = dict(zip(parted, aligned, strict=True))
    return [assembled_row(student, teacher, found.get(k)) for k, (student, teacher) in enumerate(both)]


def _prompts(side: Side, texts: list[str], joint: _Tokenized, special: bool) -> list[list[int]]:
    """What `encode_prompt` gives for each prompt, of which `joint` holds the tokens as its response follows it."""
    prompts: list[list[int]] = [[]] * len(texts)
    begun = [_shared(side.cuts, text, joint, k) for k, text in enumerate(texts)]
    whole = [k for k, shared in enumerate(begun) if shared is None]
    for k, ids in zip(whole, _Tokenized.of(side.tokenizer, [texts[k] for k in whole], special).ids, strict=True):
        prompts[k] = ids
    parted = [(k, *shared) for k, shared in enumerate(begun) if shared is not None]
    rests = _Tokenized.of(side.tokenizer, [rest for _, _, rest in parted], False).ids
    for (k, shared, _), ids in zip(parted, rests, strict=True):
        prompts[k] = shared + ids
    return prompts


def _shared(cuts: WordCuts | None, prompt: str, joint: _Tokenized, number: int) -> tuple[list[int], str] | None:
    """(the tokens that a prompt and `joint` begin with, the text whose tokens are the rest of the prompt); None: not known."""
    if cuts is None or (place := cuts.last(prompt)) is None or (shared := joint.up_to(number, place - 1)) is None:
        return None
    return shared, cuts.rest(prompt, place)


def exact_spans(vocabulary: Vocabulary, ids: Sequence[list[int]], texts: Sequence[str]) -> list[np.ndarray | None]:
    """What `byte_spans` gives without offsets for each text; None where the tokens do not add up to it."""
    if not ids:
        return []
    flat = list(chain.from_iterable(ids))
    written = b"".join(map(vocabulary.token_bytes.__getitem__, flat))
    counts = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    last = np.cumsum(vocabulary.token_sizes[np.array(flat, dtype=np.int64)])
    bounds = np.concatenate([[0], last])[np.concatenate([[0], np.cumsum(counts)])]  # of each text in `written`
    first = np.concatenate([[0], last])[:-1]
    spans = np.stack([first, last], axis=1) - np.repeat(bounds[:-1], counts)[:, None]
    places, found = np.cumsum(counts).tolist(), list[np.ndarray | None]()
    for k, (text, start, end) in enumerate(zip(texts, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        own = spans[places[k] - len(ids[k]) : places[k]]
        piece, data = written[start:end], text.encode()
        if piece == data:
            found.append(own)
        else:  # the first space that SentencePiece adds is no byte of the text
            found.append(np.maximum(own - 1, 0) if piece == b" " + data else None)
    return found


@dataclass(frozen=True)
class _Tokenized:
    """Texts as token ids, as `encode_prompt` makes them; the offsets of a text are made only when they are asked for."""

    ids: list[list[int]]
    firsts: list[int]  # tokens that were taken off the front of each
    encodings: list[Any]

    @classmethod
    def of(cls, tokenizer: Any, texts: list[str], special: bool) -> _Tokenized:
        if not texts:
            return cls([], [], [])
        batch = tokenizer(texts, add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False)
        ids, encodings = batch["input_ids"], batch.encodings
        firsts = [0] * len(ids)
        if special:
            begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
            for k, own in enumerate(ids):
                # As for a single text: a begin token that is there twice, ends that the tokenizer appended.
                firsts[k] = first = int(len(own) > 1 and own[0] == own[1] == begin)
                last = len(own)
                while last > first and own[last - 1] == end and _is_empty(encodings[k].offsets[last - 1]):
                    last -= 1
                if first or last < len(own):
                    ids[k] = own[first:last]
        return cls(ids, firsts, encodings)

    def offsets(self, text: int) -> list[tuple[int, int]]:
        """The characters of each token of a text."""
        first = self.firsts[text]
        return self.encodings[text].offsets[first : first + len(self.ids[text])]

    def up_to(self, text: int, character: int) -> list[int] | None:
        """The tokens of a text up to the one that holds a character; None where none does."""
        last = self.encodings[text].char_to_token(character)
        return None if last is None else self.ids[text][: last + 1 - self.firsts[text]]


def _is_empty(characters: tuple[int, int]) -> bool:
    return characters[0] == characters[1]
