"""Numbers in English words, up to the millions: eighteen, twenty-five, one hundred and five thousand."""

from __future__ import annotations

import re

_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
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
