"""Which number a piece of an answer states: a line, a phrase's object, a sentence. All texts here are those of `plain`."""

from __future__ import annotations

import re
from collections.abc import Callable
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
# "25 dollars, not 42", "19, 6 fewer than before", "50, including 5 for tips": said beside the number, not instead of it.
_ASIDE = re.compile(
    r"(?:[,;]|\s[—-])\s(?:(?:and|but)\s)?\*{0,2}(?:not|rather than|including|excluding|(?:down|up) from|unlike|(?:less|more|[a-z]{1,11}er) than"
    r"|(?:after|before)(?!\s(?:which|that))|[0-9][0-9.,]{0,20}\*{0,2}(?:\s[A-Za-z]{1,15}){0,2}\s(?:more|less|fewer)\sthan)\b"
    r"(?:[^,;=\n]|,(?=[0-9])){0,300}+(?!=)",
    re.IGNORECASE,
)
# "500 more than Jake's 1,000", "2 years older than 9-year-old Ben": what it is compared with.
_COMPARED = re.compile(r"\b(?:more|less|[a-z]{2,12}er)\b(?:\s[a-z]{1,15}){0,3}\sthan\b[^=\n]{0,300}$", re.IGNORECASE)
# "6 would not be enough", "7 is too many": a number that is rejected.
_UNFIT = re.compile(
    r"\btoo (?:many|few|much|little|small|large|big)\b|(?:\bnot|n't) (?:be )?(?:enough|sufficient|needed|necessary|possible)\b",
    re.IGNORECASE,
)
# "for 25 pens", "in the class of 34": what the sentence's number is said of.
_CONDITION = re.compile(
    r"\b(?:for|in|of|from|on|at|after|over|among|between|with|within|during|average|day|week)\s"
    r"(?:(?:the|all|his|her|its|their|those|these|a|an)\s)?[\s*€£¥₹]{0,4}\Z",
    re.IGNORECASE,
)
# "90 minutes, or 1 hour and 30 minutes": a number in two units, after the same in one.
_UNITS = r"(?:hours?|hrs?|h|minutes?|mins?|seconds?|days?|weeks?|months?|years?|feet|foot|ft|yards?|dollars?|pounds?|lbs?|dozen)"
_IN_TWO_UNITS = re.compile(
    rf"([0-9]\.?\*{{0,2}}[^0-9.\n]{{0,30}}?)(?:\s?=|,?\s(?:or|i\.e\.|that is|which is|equivalent to|equal to)),?\s{{1,3}}\*{{0,2}}"
    rf"[0-9]{{1,4}}\s?{_UNITS}(?:,?\sand\s|,?\s)[0-9]{{1,4}}\s?(?:{_UNITS}|inch(?:es)?|cents?|ounces?|oz)\b",
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
    """Return the number of a sentence's last bold part that has one and is no label; what is said beside comes last."""
    for bold in [*reversed(_BOLD.findall(_ASIDE.sub("", text))), *reversed(_BOLD.findall(text))]:
        if not bold.rstrip().endswith(":") and (found := _of_clauses(bold)) is not None:
            return found
    return None


def last_number(text: str, earlier: Callable[[], str] = str) -> Number | None:
    """Return the number that a sentence states.

    It is the last bold one, or the last clause's result, or that clause's last number. Where that is a number of the task ("22 chairs for
    11 tables"), the clause's number that the steps before came to counts instead.

    Args:
        earlier: Returns the text before the sentence.
    """
    if (bold := bold_number(text)) is not None:
        return bold
    main = _ASIDE.sub("", _REMARK.sub("", text))
    return (
        _of_clauses(_REASON.sub("", main), earlier)
        or _of_clauses(main, earlier)
        or _of_clauses(text, earlier)
        or _of_clauses(text, rejected=True)
    )


def is_rejected(sentence: str) -> bool:
    """Return whether a sentence only says that a number would not do."""
    return _UNFIT.search(sentence) is not None and _CLAUSE.search(sentence) is None


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


def in_one_unit(text: str) -> str:
    """Return a text without the second of two ways to write a quantity, where that one has two units: 90 minutes, or 1 hour 30 minutes."""
    return _IN_TWO_UNITS.sub(r"\1", text)


def _said(sentence: str) -> Number | None:
    return stated_first(sentence) or last_number(sentence)


def _of_clauses(text: str, earlier: Callable[[], str] = str, *, rejected: bool = False) -> Number | None:
    for whole in reversed(_CLAUSE.split(text)):
        if _UNFIT.search(whole) and not rejected:
            continue
        clause = _COMPARED.sub("", whole)
        if found := numbers(clause) or numbers(clause := whole):
            return _result_of_last_equation(clause, found) or _stated_result(clause, found, earlier) or found[-1]
    return None


def _result_of_last_equation(text: str, found: list[Number]) -> Number | None:
    equations = [chain for chain in _chains(text, found) if len(chain) > 1]
    return _result(equations[-1]) if equations else None


def _stated_result(clause: str, found: list[Number], earlier: Callable[[], str]) -> Number | None:
    """The number of a clause that the steps before came to, where its last one is a condition that they mention."""
    if len(found) == 1 or not _CONDITION.search(clause[: found[-1].start][-40:]):
        return None
    before = earlier()
    result = next((each for step in reversed(sentences(before)) if (each := _equation_in(step)) is not None), None)
    if result is None or found[-1].value == result.value:
        return None
    if not re.search(rf"(?<![0-9.,]){re.escape(found[-1].digits)}(?![0-9]|[.,][0-9])", before):
        return None
    return next((number for number in found if number.value == result.value), None)


def _equation_in(step: str) -> Number | None:
    found = numbers(step)
    return _result_of_last_equation(step, found) if found else None


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
