"""Many examples at once: what `encode_whole` and `prepared_row` give for each, at a fraction of the calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np

from dskd.data.encoding import (
    Encoded,
    Example,
    assembled_row,
    common_spans,
    encode_response,
    encode_whole,
    with_end,
)
from dskd.tokenization.batch_alignment import align_many
from dskd.tokenization.prompt_templates import prompt_text, writes_special_tokens
from dskd.tokenization.vocabulary import Vocabulary
from dskd.tokenization.word_cuts import WordCuts

AT_ONCE = (
    256  # texts that the tokenizers library gets at once; what it makes of a text takes much more memory than its ids
)


class Added(NamedTuple):
    """What a tokenizer adds to every text: ids before it, and ends of sequence after it."""

    before: list[int]
    ends: int


@dataclass(frozen=True)
class Side:
    """What encodes the text of one model. added: None for a tokenizer that only `encode_whole` can be trusted with."""

    tokenizer: Any
    vocabulary: Vocabulary
    added: Added | None
    cuts: WordCuts | None

    @classmethod
    def of(cls, tokenizer: Any) -> Side:
        """That of a fast Hugging Face tokenizer; InputError for others."""
        vocabulary = Vocabulary.from_tokenizer(tokenizer)
        return cls(tokenizer, vocabulary, _added(tokenizer), WordCuts.of(tokenizer))


def encode_batch(examples: Sequence[Example], side: Side) -> list[Encoded | None]:
    """What `encode_whole` gives for each example; None where no tokens stand for exactly the response."""
    if side.added is None:
        return [encode_whole(side.tokenizer, side.vocabulary, example) for example in examples]
    found: list[Encoded | None] = []
    for first in range(0, len(examples), AT_ONCE):
        found += _encode(examples[first : first + AT_ONCE], side, side.added)
    return found


def _encode(examples: Sequence[Example], side: Side, added: Added) -> list[Encoded | None]:
    tokenizer, vocabulary, end = side.tokenizer, side.vocabulary, side.tokenizer.eos_token_id
    special = not writes_special_tokens(tokenizer)
    texts = [prompt_text(tokenizer, example.prompt) for example in examples]
    responses = [example.response for example in examples]
    whole = [text + response for text, response in zip(texts, responses, strict=True)]
    joint = _tokenized(tokenizer, whole, added if special else None)
    prompts = _prompts(side, texts, whole, joint, added if special else None)
    rest = [ids[len(prompt) :] for ids, prompt in zip(joint, prompts, strict=True)]
    spans = exact_spans(vocabulary, rest, responses)
    found: list[Encoded | None] = []
    for k, prompt in enumerate(prompts):
        covered = spans[k]
        if covered is not None and joint[k][: len(prompt)] == prompt:
            found.append(with_end(vocabulary, end, prompt, rest[k], covered))
        else:  # the two would share a token, or the tokenizer normalises
            alone = encode_response(tokenizer, vocabulary, prompt, texts[k], responses[k])
            found.append(None if alone is None else with_end(vocabulary, end, prompt, *alone))
    return found


def _prompts(
    side: Side, texts: list[str], whole: list[str], joint: list[list[int]], added: Added | None
) -> list[list[int]]:
    """What `encode_prompt` gives for each prompt; `joint` are the ids of `whole`, the prompts with their responses."""
    if side.cuts is None:
        return _tokenized(side.tokenizer, texts, added)
    places = [side.cuts.last(text) for text in texts]
    counts = _tokens_before(side.vocabulary, joint, [] if added is None else added.before, whole, places)
    prompts: list[list[int]] = [[]] * len(texts)
    apart = [k for k, count in enumerate(counts) if count is None]
    for k, ids in zip(apart, _tokenized(side.tokenizer, [texts[k] for k in apart], added), strict=True):
        prompts[k] = ids
    rests = [side.cuts.rest(text, place or 0) for text, place in zip(texts, places, strict=True)]
    distinct = list({rests[k]: None for k, count in enumerate(counts) if count is not None})  # prompts often end alike
    ids_of = dict(zip(distinct, _tokenized(side.tokenizer, distinct, None), strict=True))
    for k, count in enumerate(counts):
        if count is not None:
            prompts[k] = joint[k][:count] + ids_of[rests[k]]
    return prompts


def _tokens_before(
    vocabulary: Vocabulary, ids: list[list[int]], before: list[int], texts: list[str], places: list[int | None]
) -> list[int | None]:
    """How many of the ids of each text are those of its characters before a place; None where their bytes do not tell."""
    counts: list[int | None] = [None] * len(texts)
    skipped = len(before)
    told = [k for k, place in enumerate(places) if place is not None and ids[k][:skipped] == before]
    written, bounds, ends = _written(vocabulary, [ids[k][skipped:] for k in told])
    wanted, asked = [], []
    for k, first, last in zip(told, bounds[:-1], bounds[1:], strict=True):
        data, piece = texts[k].encode(), written[first:last]
        if piece == data or piece == b" " + data:  # SentencePiece puts a space before the text
            asked.append(k)
            wanted.append(last - len(data) + len(texts[k][: places[k]].encode()))
    sizes = [len(ids[k]) - skipped for k in told]
    firsts = {
        k: last - size for k, last, size in zip(told, accumulate(sizes), sizes, strict=True)
    }  # the number of its first token
    found = np.searchsorted(ends, wanted)
    exact = (ends.take(found, mode="clip") == wanted).tolist() if wanted else []
    for k, index, hit in zip(asked, found.tolist(), exact, strict=True):
        if hit:
            counts[k] = skipped + index + 1 - firsts[k]
    return counts


def _written(vocabulary: Vocabulary, ids: Sequence[list[int]]) -> tuple[bytes, list[int], np.ndarray]:
    """(the bytes of all tokens, where those of each text begin and the last ends, where those of each token end)."""
    flat = list(chain.from_iterable(ids))
    written = b"".join(map(vocabulary.token_bytes.__getitem__, flat))
    ends = np.cumsum(vocabulary.token_sizes[np.array(flat, dtype=np.int64)])
    last = np.cumsum([len(own) for own in ids], dtype=np.int64)
    bounds = np.concatenate([[0], np.concatenate([[0], ends])[last]]).tolist()
    return written, bounds, ends


def _added(tokenizer: Any) -> Added | None:
    """What a tokenizer adds to every text; None where it does anything else to a text that its library does not know of."""
    from transformers import PreTrainedTokenizerFast

    own = type(tokenizer)
    if (
        own.__call__ is not PreTrainedTokenizerFast.__call__
        or own._encode_plus is not PreTrainedTokenizerFast._encode_plus
    ):
        return None
    whole, plain = (tokenizer("so be it", add_special_tokens=special)["input_ids"] for special in (True, False))
    ends = 0
    while whole[len(whole) - ends - 1 :] == [tokenizer.eos_token_id] * (ends + 1):
        ends += 1
    body = whole[: len(whole) - ends]
    return Added(body[: -len(plain)], ends) if plain and body[-len(plain) :] == plain else None


def _tokenized(tokenizer: Any, texts: list[str], added: Added | None) -> list[list[int]]:
    """The ids of each text as `encode_prompt` makes them; added: None for no special tokens but those that a text spells."""
    if not texts:
        return []
    tokenizer("")  # the library is set as for any other call
    library = tokenizer.backend_tokenizer
    ids = [each.ids for each in library.encode_batch_fast(texts, add_special_tokens=added is not None)]
    if added is None:
        return ids
    begin = tokenizer.bos_token_id
    for k, own in enumerate(ids):
        # As for a single text: a begin token that is there twice, ends that the tokenizer appended.
        first = int(len(own) > 1 and own[0] == own[1] == begin)
        if first or added.ends:
            ids[k] = own[first : len(own) - added.ends]
    return ids


def exact_spans(vocabulary: Vocabulary, ids: Sequence[list[int]], texts: Sequence[str]) -> list[np.ndarray | None]:
    """What `byte_spans` gives without offsets for each text; None where the tokens do not add up to it."""
    written, bounds, ends = _written(vocabulary, ids)
    spans = np.stack([np.concatenate([[0], ends])[:-1], ends], axis=1)
    spans -= np.repeat(np.array(bounds[:-1], dtype=np.int64), [len(own) for own in ids])[:, None]
    found: list[np.ndarray | None] = []
    token = 0
    for own, text, first, last in zip(ids, texts, bounds[:-1], bounds[1:], strict=True):
        piece, data, covered = written[first:last], text.encode(), spans[token : token + len(own)]
        token += len(own)
        if piece == data:
            found.append(covered)
        else:  # the first space that SentencePiece adds is no byte of the text
            found.append(np.maximum(covered - 1, 0) if piece == b" " + data else None)
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
