"""How a tokenizer splits bytes that stand alone, as a token of another vocabulary does: no text before them, no added space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dskd.tokenization.vocabulary import speller

# Byte strings -> the ids of the tokens that each consists of; none for one that cannot be split.
Pieces = Callable[[Sequence[bytes]], list[list[int]]]


class LongestMatch:
    """Splits bytes by always taking the longest token that fits, which needs no tokenizer.

    Args:
        tokens: The bytes of each id; None for one without text of its own. Of equal ones the first counts.
    """

    def __init__(self, tokens: Sequence[bytes | None]) -> None:
        self._ids: dict[bytes, int] = {}
        for k, token in enumerate(tokens):
            if token:
                self._ids.setdefault(token, k)
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, strings: Sequence[bytes]) -> list[list[int]]:
        return [self._split(data) for data in strings]

    def _split(self, data: bytes) -> list[int]:
        found, first = [], 0
        while first < len(data):
            lengths = range(min(self._longest, len(data) - first), 0, -1)
            length = next((n for n in lengths if data[first : first + n] in self._ids), 0)
            if not length:
                return []
            found.append(self._ids[data[first : first + length]])
            first += length
        return found


class TokenizerPieces:
    """Splits bytes as a tokenizer does.

    What it makes of them as a text counts where its tokens are those bytes and no others. Where it adds a space, changes characters or
    sees a special token, the model inside it is asked, which does none of that; bytes that are no whole characters have a spelling in
    byte-level vocabularies. What is left is split by the longest match.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        tokens: The bytes of each of its ids that count, as in `Vocabulary.tokens`.
    """

    def __init__(self, tokenizer: Any, tokens: Sequence[bytes | None]) -> None:
        self._tokenizer = tokenizer
        self._spell, self._model = speller(tokenizer), tokenizer.backend_tokenizer.model
        self._tokens = tokens
        self._longest_match = LongestMatch(tokens)

    def __call__(self, strings: Sequence[bytes]) -> list[list[int]]:
        texts = [_text(data) for data in strings]
        whole = [text for text in texts if text]
        encoded = iter(self._tokenizer(whole, add_special_tokens=False)["input_ids"] if whole else [])
        return [self._checked(data, next(encoded) if text else []) for data, text in zip(strings, texts, strict=True)]

    def _checked(self, data: bytes, ids: list[int]) -> list[int]:
        if self._is(ids, data):
            return ids
        if len(ids) > 1 and self._is(ids[:1], b" ") and self._is(ids[1:], data):  # an added space, alone
            return ids[1:]
        spelt = self._spell(data)
        if spelt is not None:
            ids = [token.id for token in self._model.tokenize(spelt)]
            if self._is(ids, data):
                return ids
        (ids,) = self._longest_match([data])
        return ids

    def _is(self, ids: Sequence[int], data: bytes) -> bool:
        pieces = [self._tokens[k] if k < len(self._tokens) else None for k in ids]
        return None not in pieces and b"".join(piece or b"" for piece in pieces) == data


def _text(data: bytes) -> str | None:
    """The characters that these bytes are; None where they are no whole ones."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
