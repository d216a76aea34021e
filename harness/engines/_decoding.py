"""Ids to text, the same for every engine: what a completion adds to its prompt, and where a stop string ends it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

from dskd.errors import InputError

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what decoders write for bytes that are no character, or not yet


def decode(tokenizer: Any, ids: Sequence[int], skipped: Set[int] | None = None) -> str:
    """The text of ids as a whole, no space removed before punctuation. Skipped are these special tokens, or all of them."""
    if skipped is None:
        return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    written = [token for token in ids if token not in skipped]
    return tokenizer.decode(written, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def special_ids(tokenizer: Any) -> set[int]:
    """The ids that a decoder skips where it is asked to skip special tokens."""
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(token for token, written in added.items() if written.special)}


def decode_completion(
    tokenizer: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int], skipped: Set[int] | None = None
) -> str:
    """The text that the completion adds to the prompt, decoded as `decode` does.

    A completion decoded alone loses its first space under SentencePiece, whose decoder strips one at the start of a text; so prompt
    and completion are decoded together and the prompt's own text is taken off. Two things can keep the prompt's text from
    being a prefix of the whole:

    - the prompt ends within a character (a cut prompt can) and the completion goes on with it: the character then belongs to
      the completion;
    - byte fallback decodes a run of byte tokens as one, and a completion that spoils the run (half a character after the byte
      token of a newline) takes the prompt's last characters with it. Then the completion is decoded after a letter instead.
    """
    prompt = decode(tokenizer, prompt_ids, skipped)
    whole = decode(tokenizer, [*prompt_ids, *completion_ids], skipped)
    for prefix in (prompt, prompt.rstrip(INCOMPLETE)):
        if whole.startswith(prefix):
            return whole[len(prefix) :]
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    prefix, whole = decode(tokenizer, anchor, skipped), decode(tokenizer, [*anchor, *completion_ids], skipped)
    if not whole.startswith(prefix):
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer's decoder changes text that stands before a completion, so an answer "
            "cannot be told from its prompt; fix: use a byte-level or SentencePiece tokenizer"
        )
    return whole[len(prefix) :]


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the earliest of the stop strings, and whether there was one."""
    ends = [position for string in stop if string and (position := text.find(string)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
