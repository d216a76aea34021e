r"""Which number of a worked answer is the final one: ours of GSM8K's rules, `RULE`.

An answer gives its number in one of five ways, and the first way in this order that it uses decides:

1. a mark: the last `####` that has a number after it, and is no heading of Markdown;
2. the last `\boxed{}`;
3. a phrase: the last "answer is 18", "Answer: 18", or heading "Final answer" with a number under it;
4. a number alone: in bold on a line of its own, or as the first line with an empty one after it;
5. the last sentence that gives a number: its bold one, or the result of an equation, or its last.

An `Ending` may put another of them first. Before that the answer ends where the model invents a further question, and begins after its
reasoning. Nothing here sees the reference. docs/answers.md has the whole rule, with the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Literal

from harness.metrics.number_statements import (
    NUMBERED,
    bold_number,
    in_one_unit,
    is_rejected,
    last_number,
    next_line,
    of_first_sentence,
    of_last_sentence,
    sentences,
    stated_first,
    without_labels,
)
from harness.metrics.number_text import Number, numbers
from harness.metrics.number_words import with_digits
from harness.metrics.own_answer import NEXT_QUESTION, OFFERS, own_turn
from harness.metrics.plain_text import plain

RULE = "2"
Way = Literal["mark", "box", "phrase", "alone", "sentence"]
WAYS: tuple[Way, ...] = ("mark", "box", "phrase", "alone", "sentence")

# Letters. Nobody's last steps are longer.
_READ_LETTERS = 30_000
_LONGEST_STATEMENT = 500
_PHRASES_TRIED = 200
_SOLUTION = re.compile(r"\n[>#* \t]{0,9}(?:Solution|Answer|Response|Explanation)\b", re.IGNORECASE)
_BRACE = re.compile(r"\\(?:boxed|fbox)\s{0,3}\{|[{}]")
_MARK = re.compile(r"####+(?P<line>(?:[^\n#]|#(?!###))*)")
_ENUMERATED = re.compile(r"[\s*]*[0-9]{1,2}[.):]\s+[*_]*[A-Za-z]")
_PHRASE = re.compile(
    r"\banswer(?:[\"'*_]{0,3}\s?\([^()\n]{0,60}\)|\s(?:to|for)\s[^.:=\n]{0,120}?)?[\"'*_]{0,4}"
    r"(?:(?P<says>\s{1,3}(?:is|was|would be|must be|should be|will be|comes out to|equals)\b|\s?=)"
    r"|(?P<colon>\s?:)|(?P<heading>[ \t]*(?=\n)))",
    re.IGNORECASE,
)
_COMMENT = re.compile(
    r"[\s*_]{0,9}(?:not|(?:in)?correct|right|wrong|(?:un)?reasonable|consistent|verified|confirmed|valid|clear|found|given|obtained)\b",
    re.IGNORECASE,
)
_ALONE = re.compile(
    r"^[ \t>]*(?P<bold>\*\*)?[ \t]?[=€£¥₹]?[ \t]?-?[€£¥₹]?[0-9][0-9.,' /^]*"
    r"(?:[%°€£¥₹]|[ \t]?[A-Za-z]{1,15}(?:[ \t][a-z]{1,15}){0,2})?\.?(?P<end>\*\*)?\.?[ \t]*$",
    re.MULTILINE,
)
_CHECK = re.compile(
    r"^[ \t#*>-]*(?:(?:let's |let us |to |we can )?(?:double[- ]?)?check(?:ing)?|verification|verify)\b[^\n.]{0,40}(?::|$)",
    re.IGNORECASE | re.MULTILINE,
)
_OFFER = re.compile(rf"[\s*_#>(-]{{0,9}}(?:{OFFERS})", re.IGNORECASE)
# What is said beside an answer and is none: offers, notes, checks.
_BESIDE = re.compile(
    rf"[\s*_#>(-]{{0,9}}(?:{OFFERS}|please (?:note|ask)|need (?:any|more|help)|i can (?:help|also)"
    r"|(?:key )?takeaways?\b|this assumes|fun fact|tip:|note\b|p\.?s\b|remember\b"
    r"|(?:let's |let us |to |we can |you can )?(?:double[- ]?)?(?:check|verify)|verification)",
    re.IGNORECASE,
)
Found = tuple[Number | None]  # (None,): the answer uses this way, and there is no number in it


def find_final_number(answer: str, first: Way = "mark") -> Number | None:
    """Return the number that an answer gives, or None: by the ways in their order, `first` before the others."""
    text = _own_answer(answer)
    box = _last_box(text)
    text = in_one_unit(without_labels(plain(text)))
    for way in (first, *(way for way in WAYS if way != first)):
        found = _in_box(box) if way == "box" else _READ[way](text)
        if found is not None:
            return found[0]
    return None


def _own_answer(answer: str) -> str:
    """What the model answered to this question: in its own turn, before a question that it invents."""
    answer = own_turn(answer)
    label = NEXT_QUESTION.search(answer)
    if label is not None and not numbers(without_labels(plain(answer[: label.start()][-_READ_LETTERS:]))):
        # It repeats the question before it answers; what it invents comes after an answer.
        solution = _SOLUTION.search(answer, label.end())
        label = None if solution is None else NEXT_QUESTION.search(answer, solution.end())
    return (answer if label is None else answer[: label.start()])[-_READ_LETTERS:]


def _by_mark(text: str) -> Found | None:
    last = max((number.start for number in numbers(text)), default=-1)
    for match in reversed(list(_MARK.finditer(text))):
        line, goes_on = match["line"].strip(" \t*#:"), last >= match.end()
        if not line:
            following = next_line(text, match.end(), _LONGEST_STATEMENT)
            if following is None:
                return (None,)  # broken off before its number
            found = stated_first(following)
        elif text[text.rfind("\n", 0, match.start()) + 1 : match.start()].strip(" \t>*"):
            found = stated_first(line) or last_number(line)  # in the middle of a line it heads nothing
        elif NUMBERED.match(line) or (goes_on and _ENUMERATED.match(line)):
            found = None
        else:
            found = stated_first(line) or (None if goes_on else last_number(line))
        if found is not None:
            return (found,)
    return None


def _last_box(text: str) -> str | None:
    """The content of the last box that is closed and not empty; in one pass, whatever the text."""
    open_braces: list[int | None] = []  # where the content of a box begins, None for other braces
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        if match[0] != "}":
            open_braces.append(None if match[0] == "{" else match.end())
        elif open_braces and (start := open_braces.pop()) is not None and (last is None or start > last[0]):
            last = (start, match.start()) if text[start : match.start()].strip() else last
    return None if last is None else text[last[0] : last[1]]


def _in_box(box: str | None) -> Found | None:
    if box is None:
        return None
    content = plain(box)
    if re.search("[√π]", content):
        return (None,)  # an expression; what number is in it is none of it
    if "=" in content and re.search(r"[,;]\s", content):
        return (last_number(content),)  # p = 3, q = 5, p + q = 8
    return (stated_first(content) or last_number(content),)


def _by_phrase(text: str) -> Found | None:
    for match in reversed(list(_PHRASE.finditer(text))[-_PHRASES_TRIED:]):
        if (found := _of_phrase(text, match)) is not None:
            return found
    return None


def _of_phrase(text: str, match: re.Match[str]) -> Found | None:
    """What one phrase gives: in its own line or, where it ends that, in the next."""
    if match["says"] and _COMMENT.match(text, match.end()):
        return None
    line = text[match.end() : match.end() + _LONGEST_STATEMENT].partition("\n")[0].strip(" \t*_:\"'")
    if not line:
        following = next_line(text, match.end(), _LONGEST_STATEMENT)
        if following is None:
            return (None,) if match["says"] else None  # broken off before its number
        if match["heading"] and not _heads_a_line(text, match.start()):
            return None
        found = stated_first(following) or of_last_sentence(following)
    elif match["says"]:
        found = of_first_sentence(line)
    else:
        # "Answer: she eats 3 eggs, so ..." begins a solution, "Final answer: she makes 18 dollars." ends one.
        is_final = text[max(0, match.start() - 6) : match.start()].lower() == "final "
        found = stated_first(line) or (of_last_sentence(line) if is_final else None)
    return None if found is None else (found,)


def _heads_a_line(text: str, position: int) -> bool:
    before = text[text.rfind("\n", max(0, position - 60), position) + 1 : position]
    return (
        len(before) < 30
        and re.fullmatch(r"[\s#*_>]*(?:(?:the|my|our|final|correct)\s)*", before, re.IGNORECASE) is not None
    )


def _alone(text: str) -> Found | None:
    for match in reversed(list(_ALONE.finditer(text))):
        is_bold = match["bold"] and match["end"]
        is_first = not text[: match.start()].strip() and re.compile(r"\n[ \t]*\n").match(text, match.end())
        if (is_bold or is_first) and (found := stated_first(match[0])) is not None:
            return (found,)
    return None


def _by_sentence(text: str) -> Found | None:
    text = with_digits(text)  # only of an answer that has no digit
    if (check := _CHECK.search(text)) and numbers(text[: check.start()]):
        text = text[: check.start()]
    lines = [sentences(line) for line in text.split("\n")]
    for line in reversed(_answering(lines)):
        # What a line has in bold it stresses, whatever its later sentences add.
        for sentence in reversed(line):
            if (found := bold_number(sentence)) is not None:
                return (found,)
        for sentence in reversed(line):
            if (found := last_number(sentence, partial(_before, text, sentence))) is not None:
                return (found,)
    found = next((found for line in reversed(lines) for each in reversed(line) if (found := last_number(each))), None)
    return None if found is None else (found,)


def _before(text: str, sentence: str) -> str:
    return text[: text.rfind(sentence)]


def _answering(lines: list[list[str]]) -> list[list[str]]:
    """The sentences of each line that may give an answer: no questions, notes and checks, and nothing after an offer of help."""
    answering: list[list[str]] = []
    given = False
    for line in lines:
        answering.append([])
        for sentence in line:
            if given and _OFFER.match(sentence):
                return answering
            if not _is_beside(sentence):
                answering[-1].append(sentence)
                given = given or any(letter in sentence for letter in "0123456789")
    return answering


def _is_beside(sentence: str) -> bool:
    bare = sentence.strip(" \t*_")
    return (
        bare.endswith(("?", "?)"))
        or (bare[:1] == "(" and bare[-1:] == ")")
        or _BESIDE.match(sentence) is not None
        or is_rejected(sentence)
    )


_READ: dict[Way, Callable[[str], Found | None]] = {
    "mark": _by_mark,
    "phrase": _by_phrase,
    "alone": _alone,
    "sentence": _by_sentence,
}
