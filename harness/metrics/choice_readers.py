"""How an answer of each kind is read out of a few words: an option, a word, a number, brackets, words in order.

A reader has three ways: `start` reads what a text begins with (after "the answer is"), `whole` a line or a bold part that is nothing but
an answer, `mention` what a line says somewhere, its last. All give the answer in one form, or None.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

_FILLERS = re.compile(
    r"(?:(?:that|it's|it is|it|is|therefore|thus|so|hence|then|indeed|most likely|probably|likely|clearly|definitely|simply|just|exactly"
    r"|deductively|logically|the|an?|this|option|choice|answer|letter|sentence|statement|argument|number|missing|closing|brackets?"
    r"|parentheses|sequence|order|sorted|list|words?|would be|are|as follows|follows)\b[\s:,'\"-]{0,9})",
    re.IGNORECASE,
)
_DRESS = " \t\n\"':;,.*_>-=~!|"
_NOT = re.compile(r"(?:not|neither)\b", re.IGNORECASE)
_BUT = re.compile(r"\b(?:but|rather|instead|it is|it's)\b[\s:,]{0,5}", re.IGNORECASE)
_MOST_LINE = 2000


def first_line(text: str) -> str:
    """The first line that has something on it."""
    return text.lstrip().split("\n", 1)[0][:_MOST_LINE]


class Reader(ABC):
    """Reads one kind of answer; without an exception, whatever the text."""

    mathematics = True  # whether brackets after a backslash are LaTeX's signs

    def start(self, text: str) -> str | None:
        """The answer that a text begins with; "not X but" another may come before it. None where it only says what is not."""
        for _ in range(6):
            if not _NOT.match(line := first_line(text).lstrip(_DRESS)):
                return self.begin(text)
            if (but := _BUT.search(line)) is None:
                return None
            text = line[but.end() :]
        return None

    def begin(self, text: str) -> str | None:
        """The answer that a text begins with, after fillers such as "that the option"."""
        line = first_line(text).strip(_DRESS[:-1])
        for _ in range(6):
            if (found := self.at(line)) is not None:
                return found
            filler = _FILLERS.match(line)
            if filler is None:
                return None
            line = line[filler.end() :].strip(_DRESS[:-1])
        return None

    @abstractmethod
    def at(self, line: str) -> str | None:
        """The answer at the very beginning of a line."""

    @abstractmethod
    def whole(self, line: str) -> str | None:
        """The answer that a line is, with nothing besides."""

    @abstractmethod
    def mention(self, line: str) -> str | None:
        """The answer that a line comes to."""


class OptionReader(Reader):
    """The letter of one of the options, given by letter, by text, or by both (then the letter counts)."""

    _LABEL = re.compile(r"[(\[{]\s?([A-Za-z])\s?[)\]}]|([A-Za-z])(?=\s{0,3}(?:[.):,;!=\]\"'}-]|$))")
    _BEFORE_REASON = re.compile(
        r"([A-Z]) (?=(?:because|since|as|which|given|based)\b)|(?![AI])([A-Z]) (?=(?:is|was|fits|\()\b)"
    )
    _NAMED = re.compile(r"\(([A-Z])\)|\b[Oo]ption ([A-Z])\b|\b[Cc]hoice ([A-Z])\b|(?<![A-Za-z])([A-Z])\)")
    _AFFIRMED = re.compile(
        r"(?<![A-Za-z])\(?([A-Z])\)?(?: [^.()\n]{1,80})? (?:is|must be|would be|seems|appears)(?: to be)?(?: the)?(?: only| most| best)?"
        r" (?:right|correct|answer|best|true|valid|one|solution)\b"
    )
    _REJECTED = re.compile(
        r"\b(?:not|than|instead of|unlike|excludes?|rules? out) (?:option |choice )?\(?[A-Z]\)?(?![A-Za-z])"
        r"|(?<![A-Za-z])\(?[A-Z]\)? (?:is|are|was|can be|must be) (?:wrong|incorrect|false|not|ruled|excluded|eliminated)\b"
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        self._letters = set(options)
        texts = {_words(text): letter for letter, text in reversed([*options.items()])}
        self._texts = sorted(texts.items(), key=lambda item: -len(item[0]))

    def at(self, line: str) -> str | None:
        label = self._LABEL.match(line) or self._BEFORE_REASON.match(line)
        letter = next(filter(None, label.groups()), "").upper() if label else ""
        if letter in self._letters:
            return f"({letter})"
        return self._by_text(line, exactly=False)

    def whole(self, line: str) -> str | None:
        bare = line.strip(_DRESS)
        if not 0 < len(bare) <= _MOST_LINE:
            return None
        label = self._LABEL.match(bare)
        letter = next(filter(None, label.groups()), "").upper() if label else ""
        if label and letter in self._letters:
            rest = _words(bare[label.end() :])
            return f"({letter})" if not rest or dict(self._texts).get(rest) == letter else None
        return self._by_text(bare, exactly=True)

    def is_label(self, line: str) -> bool:
        """Whether a line has a letter and nothing else."""
        return self.whole(line) is not None and len(line.strip(_DRESS + "()[]{}")) == 1

    def lists(self, line: str) -> str | None:
        """The letter that a line begins with, as in a list of the options, where it goes on after it."""
        label = self._LABEL.match(line.strip(_DRESS))
        letter = next(filter(None, label.groups()), "").upper() if label else ""
        return letter if letter in self._letters and not self.is_label(line) else None

    def mention(self, line: str) -> str | None:
        line = self._REJECTED.sub(" ", line[-_MOST_LINE:])
        for pattern in (self._AFFIRMED, self._NAMED):
            letters = [next(filter(None, match.groups())) for match in pattern.finditer(line)]
            if known := [letter for letter in letters if letter in self._letters]:
                return f"({known[-1]})"
        said = f" {_words(line)} "
        places = [(said.rfind(f" {text} "), len(text), letter) for text, letter in self._texts if text]
        last = max(places, default=(-1, 0, ""))
        return f"({last[2]})" if last[0] >= 0 else None

    def _by_text(self, line: str, *, exactly: bool) -> str | None:
        said = _words(line)
        for text, letter in self._texts:
            if said == text or (not exactly and text and f"{said} ".startswith(f"{text} ")):
                return f"({letter})"
        return None


class WordReader(Reader):
    """One of two words, such as Yes and No; `statements` are sentences that say one of them."""

    _NOT_VALID = re.compile(
        r"\W{0,9}(?:that )?(?:the argument )?(?:is )?(?:deductively |logically )?not (?:deductively |logically )?valid\b",
        re.IGNORECASE,
    )

    def __init__(self, words: tuple[str, str], statements: Sequence[tuple[str, str]] = ()) -> None:
        self._words = {word.lower(): word for word in words}
        either = "|".join(self._words)
        self._at = re.compile(rf"(?:({either})\b)(?!-)", re.IGNORECASE)
        after = r"(?=\s{0,3}(?:[.,;:!)\"'\]}]|$))" if "no" in self._words else r"\b"  # "no reason" is not an answer
        self._mention = re.compile(rf"\b(not (?:\w{{1,20}}ly )?)?({either}){after}", re.IGNORECASE)
        self._statements = [(re.compile(pattern, re.IGNORECASE), word) for pattern, word in statements]
        self._opposite = {"valid": "invalid"} if "valid" in self._words else {}

    def start(self, text: str) -> str | None:
        line = first_line(text)
        if self._opposite and self._NOT_VALID.match(line):
            return "invalid"
        return super().start(text) or self._stated(line)

    def at(self, line: str) -> str | None:
        found = self._at.match(line.lstrip("(["))
        return self._words[found[1].lower()] if found else None

    def before_reason(self, line: str) -> str | None:
        """The answer that a line begins with, where a reason follows: "True or False" begins with none."""
        found = self._at.match(line)
        follows = found and re.match(r"\W*$|\s?[.,:;!-]|\s(?:because|since|as)\b", line[found.end() :])
        return self._words[found[1].lower()] if found and follows else None

    def whole(self, line: str) -> str | None:
        return self._words.get(line.strip(_DRESS + "()[]{}").lower())

    def mention(self, line: str) -> str | None:
        line = line[-_MOST_LINE:]
        answer = None
        for found in self._mention.finditer(line):
            word = found[2].lower()
            if found[1]:
                word = self._opposite.get(word, "")
            answer = self._words.get(word, answer)
        return answer or self._stated(line)

    def _stated(self, line: str) -> str | None:
        found = [
            (match.end(), -match.start(), word)
            for pattern, word in self._statements
            for match in pattern.finditer(line)
        ]
        return max(found)[2] if found else None  # of two that end together, the longer one has the "not"


class NumberReader(Reader):
    """A number, in digits or (up to ninety-nine) in words."""

    _NUMBER = re.compile(
        r"(?:(?<![\w).])-\s?)?(?:\d{1,3}(?:,\d{3}){1,9}(?![\d])|\d{1,40})(?:\.\d{1,40})?(?!\d)", re.ASCII
    )
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
        bare = line.strip(_DRESS[:-1].replace("-", "") + "()[]{}")
        number = self._NUMBER.match(bare) or self._NAMED.match(bare)
        rest = bare[number.end() :].split() if number and len(bare) < 200 else [""] * 9
        return (
            self._numbers(bare)[0]
            if len(rest) <= 3 and not any(word[:1].isdigit() or "=" in word for word in rest)
            else None
        )

    def mention(self, line: str) -> str | None:
        line = re.sub(r"^\s{0,9}\d{1,3}[.)]\s", "", line[-_MOST_LINE:])  # of a list
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
        runs = self._RUN.findall(line[-_MOST_LINE:])
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
        found = self._orders(text[:_MOST_LINE])
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
        return _words(first_line(text)) or None

    def at(self, line: str) -> str | None:
        return self.begin(line)

    def whole(self, line: str) -> str | None:
        return None

    def mention(self, line: str) -> str | None:
        return _words(line) or None


def _words(text: str) -> str:
    """The words of a text in lower case, without punctuation at their ends and an article in front."""
    words = [word for part in text.lower().split() if (word := part.strip(".,:;!?\"'()[]{}*_`"))]
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def _brackets(text: str) -> str:
    return "".join(letter for letter in text if letter in "[](){}<>")


def _written(number: str) -> str:
    value = Fraction(number.replace(",", "").replace(" ", ""))
    return str(value) if value.denominator != 1 else str(value.numerator)
