"""How a number, brackets, words in order, or a text of its own is read out of a few words of an answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from harness.metrics.choice_readers import DRESS, MOST_LINE, Reader, first_line, words_of


class NumberReader(Reader):
    """A number, in digits or (up to ninety-nine) in words."""

    _NUMBER = re.compile(
        r"(?:(?<![\w).])-\s?)?(?:\d{1,3}(?:,\d{3}){1,9}(?![\d])|\d{1,40})(?:\.\d{1,40})?(?!\d)", re.ASCII
    )
    _THING = re.compile(r"\s{0,9}[-*•+]\s{1,9}(?:[0-9]{1,9}|[a-z]{3,9})\s[A-Za-z(]", re.IGNORECASE)
    _RESULT = re.compile(r"=\s?(-?\s?[0-9][^=]{0,60})$")
    _REMARK = re.compile(r"\([^()]{0,200}[A-Za-z][^()]{0,200}\)")
    _ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    _TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
    _NAMES = {name: value for value, name in enumerate(_ONES.split())} | {
        name: 10 * value for value, name in enumerate(_TENS.split(), 2)
    }
    _NAMED = re.compile(
        rf"\b(?:({'|'.join(_TENS.split())})[- ](one|two|three|four|five|six|seven|eight|nine)|({'|'.join(_NAMES)}))\b",
        re.IGNORECASE,
    )

    def begin(self, text: str) -> str | None:
        line = first_line(text)
        found = self._numbers(line.rpartition("=")[2]) or self._numbers(line)
        return found[0] if found else None

    def at(self, line: str) -> str | None:
        return self.begin(line)

    def whole(self, line: str) -> str | None:
        if self._THING.match(line):
            return None  # "- 2 apples" of a list
        if (result := self._RESULT.search(line[-100:])) is not None:
            line = result[1]  # "Total: 1 + 1 + 2 = 4"
        bare = line.strip(DRESS[:-1].replace("-", "") + "()[]{}")
        number = self._NUMBER.match(bare) or self._NAMED.match(bare)
        rest = bare[number.end() :].split() if number and len(bare) < 200 else [""] * 9
        return (
            self._numbers(bare)[0]
            if len(rest) <= 3 and not any(word[:1].isdigit() or "=" in word for word in rest)
            else None
        )

    def mention(self, line: str) -> str | None:
        line = re.sub(r"^\s{0,9}\d{1,3}[.)]\s", "", line[-MOST_LINE:])  # of a list
        without_remarks = self._REMARK.sub(" ", line)
        found = (
            self._numbers(without_remarks.rpartition("=")[2]) or self._numbers(without_remarks) or self._numbers(line)
        )
        return found[-1] if found else None

    def _numbers(self, line: str) -> list[str]:
        numbers = [_written(match[0]) for match in self._NUMBER.finditer(line)]
        return numbers or [
            str(self._NAMES[(match[1] or match[3]).lower()] + (self._NAMES[match[2].lower()] if match[2] else 0))
            for match in self._NAMED.finditer(line)
        ]


class BracketReader(Reader):
    """The brackets that close a sequence; where an answer repeats the sequence, what comes after it."""

    mathematics = False
    _RUN = re.compile(
        r"(?<![A-Za-z0-9])[\[\](){}<>](?:(?:[\s,\"'`]{0,3}and)?[\s,\"'`]{0,5}[\[\](){}<>])*(?![A-Za-z0-9])"
    )

    def __init__(self, opening: str) -> None:
        self._given = _brackets(opening)

    def begin(self, text: str) -> str | None:
        run = self._RUN.search(first_line(text))
        return self._closing(run[0]) if run else None

    def at(self, line: str) -> str | None:
        return self.begin(line)

    def whole(self, line: str) -> str | None:
        bare = line.strip("\"'`,.;:* \t|")
        return self._closing(bare) if self._RUN.fullmatch(bare) else None

    def mention(self, line: str) -> str | None:
        runs = self._RUN.findall(line[-MOST_LINE:])
        return self._closing(runs[-1]) if runs else None

    def _closing(self, run: str) -> str | None:
        said = _brackets(run).removeprefix(self._given)
        return " ".join(said) or None


class OrderReader(Reader):
    """Given words in an order: the first so many words that are they, separated by whatever."""

    def __init__(self, words: Sequence[str]) -> None:
        self._given = Counter(word.lower() for word in words)
        self._count = len(words)

    def begin(self, text: str) -> str | None:
        found = self._orders(text[:MOST_LINE])
        return found[0] if found else None

    def at(self, line: str) -> str | None:
        return self.begin(line)

    def whole(self, line: str) -> str | None:
        return None  # lists go over lines

    def mention(self, line: str) -> str | None:
        """The last order of all the words in a text, else what its last line says instead."""
        found = self._orders(line)
        return found[-1] if found else " ".join(self._tokens(line.strip().rpartition("\n")[2])) or None

    def _tokens(self, text: str) -> list[str]:
        tokens = (part.strip(".,:;!?\"'()[]*_-").lower() for part in re.split(r"[\s,;|<>\u2192]+", text))
        kept = (token for token in tokens if token and not token.isdigit())
        return [token for token in kept if token != "and" or "and" in self._given]

    def _orders(self, text: str) -> list[str]:
        """All runs of the given words, each once, in the text's order."""
        tokens, orders = self._tokens(text), []
        lacking = Counter(self._given)
        wrong = 0  # tokens of the window that are none of the given, or one too often
        for place, token in enumerate(tokens):
            lacking[token] -= 1
            wrong += lacking[token] < 0
            if place >= self._count:
                gone = tokens[place - self._count]
                wrong -= lacking[gone] < 0
                lacking[gone] += 1
            if place >= self._count - 1 and wrong == 0:
                orders.append(" ".join(tokens[place - self._count + 1 : place + 1]))
        return orders


class TextReader(Reader):
    """A text of its own, compared without case and punctuation."""

    def begin(self, text: str) -> str | None:
        return words_of(first_line(text)) or None

    def at(self, line: str) -> str | None:
        return self.begin(line)

    def whole(self, line: str) -> str | None:
        return None

    def mention(self, line: str) -> str | None:
        return words_of(line) or None


def _brackets(text: str) -> str:
    return "".join(letter for letter in text if letter in "[](){}<>")


def _written(number: str) -> str:
    value = Fraction(number.replace(",", "").replace(" ", ""))
    return str(value) if value.denominator != 1 else str(value.numerator)
