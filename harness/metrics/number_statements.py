"""Which number a piece of an answer states: a line, a phrase's object, a sentence. All texts here are those of `plain`."""

from __future__ import annotations

import re
from itertools import pairwise

from harness.metrics.number_text import Number, numbers
from harness.metrics.number_words import with_digits

Chain = list[list[Number]]  # the sides of an equation, each with its numbers; one side where nothing is equated

_LABEL_WORDS = "step|part|case|method|approach|phase|stage|option|example"
# A line that numbers a step: nothing it holds is the answer.
NUMBERED = re.compile(rf"[\s*]*(?:{_LABEL_WORDS})s?\b", re.IGNORECASE)
_ITEM = re.compile(
    r"^(?P<before>[ \t>*-]{0,20}(?:#{1,6}[ \t]{0,9})?\*{0,3})(?P<number>[0-9]{1,3})[.)](?=[ \t]+\S|\*\*)", re.MULTILINE
)
_STEP = re.compile(
    rf"\b(step|(?<=^)(?:{_LABEL_WORDS}))(s?) \(?[0-9]{{1,3}}\)?(?![0-9]|[.,][0-9]| ?[/%×*+=-])", re.I | re.M
)
_LABELLED = re.compile(rf"^([ \t#*>-]{{0,20}})({_LABEL_WORDS}) [0-9]{{1,3}}(?=[:.)*\s])", re.IGNORECASE | re.MULTILINE)

_VARIABLE = r"\\?[A-Za-z]{1,12}(?:\s[A-Za-z]{1,12}){0,2}\s?="
_LEAD = re.compile(
    r"[\s*_`\"'(\[=:~|>#€£¥₹-]*"
    r"(?:(?:exactly|approximately|about|around|roughly|simply|just|thus|therefore|so|then|now|still|indeed|clearly|only|equal to|"
    rf"a total of|the number|final answer|the answer is|answer|US|CA|AU|{_VARIABLE})[\s*_`\"'(\[=:~|€£¥₹-]{{0,9}}){{0,4}}",
    re.IGNORECASE,
)
_JOINS = re.compile(
    r"[\s)\]]*(?:[A-Za-z°%€£¥₹/]{1,20}\.?[\s)\]]+){0,3}(?P<sign>[-+*/×÷·=])[\s(\[€£¥₹]*(?:[A-Za-z]{1,2}\s?(?P<again>=)\s?|(?<==)(?:\s?[A-Za-z]{1,15}){1,4}\s)?"
)
_BOLD = re.compile(r"\*\*((?:[^*\n]|\*(?!\*)){1,200})\*\*")
# "18 dollars (9 eggs at 2 dollars)": a remark, not a factor.
_REMARK = re.compile(r"(?<=[A-Za-z0-9%€*.])\s\([^()\n]{0,200}\)(?!\s?[=×*/^+-])")
# "18 dollars because 9 eggs cost 2 each", "18, which is 3 more than 15": a reason or a comparison, not the result.
# A reason that ends in an equation repeats the result: "18 dollars because 9 * 2 = 18".
_REASON = re.compile(
    r",?\s(?:because|since|given that|assuming|compared (?:to|with)|instead of|out of"
    r"|which is [^.;:\n]{0,60}\b(?:than|more|less|fewer|times)\b)[^=\n]*$",
    re.IGNORECASE,
)
_NEXT_LINE = re.compile(r"\S[^\n]*")
_CLAUSE = re.compile(r"[;:,—]\s|\s(?:and|so|then|but|or|which|making|giving|totaling|totalling|leaving)\s")
_SENTENCE = re.compile(r"(?<=[.!?])[*)\"'_]{0,3}\s+|\n+")


def stated_first(text: str) -> Number | None:
    """Return the number that a text begins with, dressed at most; of an equation that it begins with, the result."""
    text = with_digits(text)
    found = numbers(text)
    if not found or not _LEAD.fullmatch(text[: found[0].start][-200:]):
        return None
    return _result(_chains(text, found)[0]) or found[0]


def bold_number(text: str) -> Number | None:
    """Return the number of a sentence's last bold part that has one and is no label."""
    for bold in reversed(_BOLD.findall(text)):
        if not bold.rstrip().endswith(":") and (found := _of_clauses(bold)) is not None:
            return found
    return None


def last_number(text: str) -> Number | None:
    """Return the number that a sentence states: its last bold one, or its last clause's result, or that clause's last number."""
    if (bold := bold_number(text)) is not None:
        return bold
    main = _REMARK.sub("", text)
    return _of_clauses(_REASON.sub("", main)) or _of_clauses(main) or _of_clauses(text)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; a line's end ends one."""
    return [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]


def of_first_sentence(line: str) -> Number | None:
    """Return what the first sentence that has a number states: the object of "the answer is"."""
    return next((found for sentence in sentences(line) if (found := _said(sentence)) is not None), None)


def of_last_sentence(line: str) -> Number | None:
    """Return what the last sentence that has a number states."""
    return next((found for sentence in reversed(sentences(line)) if (found := _said(sentence)) is not None), None)


def without_labels(text: str) -> str:
    """Return a text without the numbers of its lists, steps and headings."""
    items = list(_ITEM.finditer(text))
    counts = [int(item["number"]) for item in items]
    labels = {
        item.start()
        for at, item in enumerate(items)
        # One of a series: "18. I hope this helps" at the start of a line is none.
        if (at and counts[at - 1] in (counts[at], counts[at] - 1))
        or (at + 1 < len(items) and counts[at + 1] in (counts[at], counts[at] + 1))
    }
    text = _ITEM.sub(lambda item: item["before"] if item.start() in labels else item[0], text)
    return _LABELLED.sub(r"\1\2", _STEP.sub(r"\1\2", text))


def _said(sentence: str) -> Number | None:
    return stated_first(sentence) or last_number(sentence)


def _of_clauses(text: str) -> Number | None:
    for clause in reversed(_CLAUSE.split(text)):
        if found := numbers(clause):
            equations = [chain for chain in _chains(clause, found) if len(chain) > 1]
            return (_result(equations[-1]) if equations else None) or found[-1]
    return None


def _chains(text: str, found: list[Number]) -> list[Chain]:
    """Group numbers that signs join: 3 + 15 = 18 is one chain of two sides."""
    chains: list[Chain] = [[[found[0]]]]
    for before, number in pairwise(found):
        join = _joined(text[before.end : number.start])
        if join is None:
            chains.append([[number]])
        elif join == "=":
            chains[-1].append([number])
        else:
            chains[-1][-1].append(number)
    # "x = 18" is an equation too, whose other side has no number.
    return [[[], *chain] if _equated(text, chain) else chain for chain in chains]


def _joined(between: str) -> str | None:
    if len(between) > 100 or (match := _JOINS.fullmatch(between.replace("**", ""))) is None:
        return None
    return match["again"] or match["sign"]


def _equated(text: str, chain: Chain) -> bool:
    start = chain[0][0].start
    return text[max(0, start - 6) : start].rstrip(" *(€£¥₹[").endswith("=")


def _result(chain: Chain) -> Number | None:
    return next((side[0] for side in reversed(chain) if len(side) == 1), None) if len(chain) > 1 else None


def next_line(text: str, position: int, longest: int) -> str | None:
    """Return the first line from a position on that is not empty, cut to so many letters, or None."""
    match = _NEXT_LINE.search(text, position)
    return None if match is None else match[0][:longest]
