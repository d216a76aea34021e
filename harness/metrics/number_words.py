"""Numbers in English words, up to the millions: eighteen, twenty-five, one hundred and five thousand."""

from __future__ import annotations

import re

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: number for number, word in enumerate(_UNITS)} | {word: 10 * at for at, word in enumerate(_TENS, 2)}
_LARGE = {"thousand": 1000, "million": 1_000_000}
_WORD = "|".join([*sorted(_SMALL, key=len, reverse=True), "hundred", *_LARGE])
_RUN = re.compile(rf"\b(?:{_WORD})(?:(?:-| and |\ )(?:{_WORD})){{0,12}}\b", re.IGNORECASE)
_DIGIT = re.compile("[0-9]")
# "one of them" and "no one" are no numbers; "the answer is one." is.
_ALONE = re.compile(r"(?:^|is|[:=#*])[\s*]*\Z")


def with_digits(text: str) -> str:
    """Return a text with its numbers in digits instead of words, where it has no digit yet; else as it is."""
    return text if _DIGIT.search(text) else _RUN.sub(lambda match: _digits(match, text), text)


def _digits(match: re.Match[str], text: str) -> str:
    words = re.split(r"-| and | ", match[0].lower())
    if words == ["one"] and not _ALONE.search(text[max(0, match.start() - 8) : match.start()]):
        return match[0]
    total = group = 0
    for word in words:
        if word in _LARGE:
            total, group = total + max(group, 1) * _LARGE[word], 0
        elif word == "hundred":
            group = max(group, 1) * 100
        else:
            group += _SMALL[word]
    return str(total + group)
