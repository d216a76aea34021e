"""Contexts and continuations to ids, as lm-eval's models encode them, so that log-likelihoods are of the same tokens.

A continuation's ids are what the context's ids leave of those of the whole text. So a token never holds the end of a context and
the start of a continuation; and spaces at the end of a context belong to the continuation, whose first token they are a part of.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dskd.errors import InputError

_AT_ONCE = 512  # texts
_SHOWN = 40  # characters


@dataclass(frozen=True)
class EncodedPair:
    """The ids of a context, one at least, and of its continuation, one at least; arrays, which take an eighth of the memory of lists."""

    context: array[int]
    continuation: array[int]
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.context) + len(self.continuation)


def encode_pairs(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[EncodedPair]:
    """Encode contexts and continuations, in order.

    A context begins with what the tokenizer puts before any text, unless its text has the begin token already. Without any text
    it is the begin token, or where there is none the end token.

    InputError for a continuation that has no token of its own.
    """
    split = [_spaces_to_continuation(context, continuation) for context, continuation in pairs]
    texts = (text for context, continuation in split for text in (context, context + continuation))
    ids = _ids_of(tokenizer, texts, special=True)
    alone = _ids_of(tokenizer, (continuation for context, continuation in split if not context), special=False)
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    encoded = []
    for (given, wanted), (context, continuation) in zip(pairs, split, strict=True):
        if context:
            before = ids[context]
            own = ids[context + continuation][len(before) :]
        else:
            own = alone[continuation]
            before, own = (own[:1], own[1:]) if own[:1] == array("I", [start]) else (array("I", [start]), own)
        if not before or not own:
            raise InputError(
                f"continuation {wanted[:_SHOWN]!r} after {given[-_SHOWN:]!r}: has no token of its own in the tokenizer "
                f"{tokenizer.name_or_path}; fix: leave the document out, or correct its continuations"
            )
        encoded.append(EncodedPair(before, own))
    return encoded


def fit_pair(pair: EncodedPair, room: int | None) -> EncodedPair:
    """At most `room` ids of a pair: the first of the context are dropped, begin token included, as lm-eval does.

    InputError where the continuation alone leaves no room for a token before it.
    """
    excess = 0 if room is None else len(pair) - room
    if excess <= 0:
        return pair
    if excess >= len(pair.context):
        raise InputError(
            f"continuation of {len(pair.continuation)} tokens: the model's context has room for {room} with one before it; "
            "fix: evaluate a model with a longer context, or leave the document out"
        )
    return replace(pair, context=pair.context[excess:], truncated=True)


def _spaces_to_continuation(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _ids_of(tokenizer: Any, texts: Iterable[str], *, special: bool) -> dict[str, array[int]]:
    """The ids of distinct texts; with the tokens that the tokenizer adds to a text, but none at its end."""
    begin = tokenizer.bos_token if tokenizer.bos_token is not None else tokenizer.eos_token
    groups: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for text in texts:
        groups[special and not text.startswith(begin)][text] = None
    found: dict[str, array[int]] = {}
    for adds, group in groups.items():
        distinct = list(group)
        ended = adds and tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]
        for first in range(0, len(distinct), _AT_ONCE):
            part = distinct[first : first + _AT_ONCE]
            for text, ids in zip(part, tokenizer(part, add_special_tokens=adds)["input_ids"], strict=True):
                found[text] = array("I", ids[:-1] if ended else ids)
    return found
