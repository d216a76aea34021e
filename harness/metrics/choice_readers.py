"""How an option's letter or one of two words is read out of a few words of an answer; `choice_values` reads numbers and sequences.

A reader has three ways: `start` reads what a text begins with (after "the answer is"), `whole` a line or a bold part that is nothing but
an answer, `mention` what a line says somewhere, its last. All give the answer in one form, or None.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence

from harness.metrics.choice_text import plain

_FILLERS = re.compile(
    r"(?:(?:that|it's|it is|it|is|therefore|thus|so|hence|then|indeed|most likely|probably|likely|clearly|definitely|simply|just|exactly"
    r"|deductively|logically|the|an?|this|option|choice|answer|letter|sentence|statement|argument|number|missing|closing|brackets?"
    r"|parentheses|sequence|order|sorted|list|words?|would be|are|as follows|follows)\b[\s:,'\"-]{0,9})",
    re.IGNORECASE,
)
DRESS = " \t\n\"':;,.*_>-=~!|"
_NOT = re.compile(r"(?:not|neither)\b", re.IGNORECASE)
_BUT = re.compile(r"\b(?:but|rather|instead|it is|it's)\b[\s:,]{0,5}", re.IGNORECASE)
_DENIED = re.compile(r"(?: not|n't| rather than| instead of| unlike)(?: an?| the)?\Z")
_STOP = re.compile(r"[.,:;!](?:\s|$)|\s-\s|\s(?:because|since|as)\s")
_FEW = 3  # words: a longer text says a whole thing
_JUDGED = re.compile(
    r"(?:(?P<right>[✅✓✔☑]|\b(?:true|correct|right|yes)\b)|[❌✗✘]|\b(?:false|incorrect|wrong|no)\b)\W{0,9}$",
    re.IGNORECASE,
)
MOST_LINE = 2000


def first_line(text: str) -> str:
    """The first line that has something on it."""
    return text.lstrip().split("\n", 1)[0][:MOST_LINE]


class Reader(ABC):
    """Reads one kind of answer; without an exception, whatever the text."""

    mathematics = True  # whether brackets after a backslash are LaTeX's signs

    def start(self, text: str) -> str | None:
        """The answer that a text begins with; "not X but" another may come before it. None where it only says what is not."""
        for _ in range(6):
            if not _NOT.match(line := first_line(text).lstrip(DRESS)):
                return self.begin(text)
            if (but := _BUT.search(line)) is None:
                return None
            text = line[but.end() :]
        return None

    def begin(self, text: str) -> str | None:
        """The answer that a text begins with, after fillers such as "that the option"."""
        line = first_line(text).strip(DRESS[:-1])
        for _ in range(6):
            if (found := self.at(line)) is not None:
                return found
            filler = _FILLERS.match(line)
            if filler is None:
                return None
            line = line[filler.end() :].strip(DRESS[:-1])
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
        r" (?:right|correct|answer|best|true|valid|one|solution)\b(?!,? (?:but|however|though)\b)"
    )
    _REJECTED = re.compile(
        r"\b(?:not|than|instead of|unlike|excludes?|rules? out) (?:option |choice |statement |sentence |answer )?\(?[A-Z]\)?(?![A-Za-z])"
        r"|(?<![A-Za-z])\(?[A-Z]\)? (?:is|are|was|can be|must be) (?:wrong|incorrect|false|not|ruled|excluded|eliminated)\b"
    )

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = {letter: words_of(plain(text)) for letter, text in options.items()}
        counts = Counter(self._options.values())  # a text that several options have names none
        texts = {text: letter for letter, text in self._options.items() if counts[text] == 1}
        self._texts = sorted(texts.items(), key=lambda item: -len(item[0]))

    def start(self, text: str) -> str | None:
        # The text of an option may begin with a "not".
        return self._by_text(first_line(text), exactly=True) or super().start(text)

    def at(self, line: str) -> str | None:
        label = self._LABEL.match(line) or self._BEFORE_REASON.match(line)
        letter = next(filter(None, label.groups()), "").upper() if label else ""
        if letter in self._options:
            return f"({letter})"
        return self._by_text(line, exactly=False)

    def whole(self, line: str) -> str | None:
        bare = line.strip(DRESS)
        if not 0 < len(bare) <= MOST_LINE:
            return None
        label = self._LABEL.match(bare)
        letter = next(filter(None, label.groups()), "").upper() if label else ""
        if label and letter in self._options:
            rest = words_of(bare[label.end() :])
            return f"({letter})" if not rest or self._options[letter] == rest else None
        return self._by_text(bare, exactly=True)

    def is_label(self, line: str) -> bool:
        """Whether a line has a letter and nothing else."""
        return self.whole(line) is not None and len(line.strip(DRESS + "()[]{}")) == 1

    def lists(self, line: str) -> str | None:
        """The letter that a line begins with, as in a list of the options, where it goes on after it."""
        label = self._LABEL.match(line.strip(DRESS))
        letter = next(filter(None, label.groups()), "").upper() if label else ""
        return letter if letter in self._options and not self.is_label(line) else None

    def judged(self, lines: Sequence[str]) -> str | None:
        """The one option that a list of the options calls right: "(A) … - False", "(B) … - True"."""
        marks = [(self.lists(line), _JUDGED.search(line[-60:])) for line in lines]
        judged = [(letter, mark["right"] is not None) for letter, mark in marks if letter is not None and mark]
        right = {letter for letter, is_right in judged if is_right}
        return f"({right.pop()})" if len(right) == 1 and len(judged) > 1 else None

    def before_reason(self, line: str) -> str | None:
        """The answer that a line begins with: a letter, or an option's text that ends there ("A kite has four sides, so" ends none)."""
        if (found := self.at(line)) is None or found != self._by_text(line, exactly=False):
            return found
        text = next(text for text, letter in self._texts if f"({letter})" == found)
        return (
            found if len(text.split()) > _FEW or self._by_text(_STOP.split(line, maxsplit=1)[0], exactly=True) else None
        )

    def mention(self, line: str) -> str | None:
        line = self._REJECTED.sub(" ", line[-MOST_LINE:])
        for pattern in (self._AFFIRMED, self._NAMED):
            letters = [next(filter(None, match.groups())) for match in pattern.finditer(line)]
            if known := [letter for letter in letters if letter in self._options]:
                return f"({known[-1]})"
        said = f" {words_of(line)} "
        places = [(_said_last(said, text), len(text), letter) for text, letter in self._texts if text]
        last = max(places, default=(-1, 0, ""))
        return f"({last[2]})" if last[0] >= 0 else None

    def _by_text(self, line: str, *, exactly: bool) -> str | None:
        said = words_of(line)
        for text, letter in self._texts:
            if said == text or (not exactly and text and f"{said} ".startswith(f"{text} ")):
                return f"({letter})"
        return None


def _said_last(said: str, text: str) -> int:
    """Where a text is said last, and not as in "a heptagon, not a hexagon"; -1 where it is not."""
    place = said.rfind(f" {text} ")
    while place >= 0 and _DENIED.search(said[max(0, place - 30) : place]):
        place = said.rfind(f" {text} ", 0, place)
    return place


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
        return self._words.get(line.strip(DRESS + "()[]{}").lower())

    def mention(self, line: str) -> str | None:
        line = line[-MOST_LINE:]
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


def words_of(text: str) -> str:
    """The words of a text in lower case, without punctuation at their ends and an article in front."""
    words = [word for part in text.lower().split() if (word := part.strip(".,:;!?\"'()[]{}*_`"))]
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)
