r"""Finds the final answer of a worked problem: the expression that its solution ends in, as MATH's do.

docs/answers.md ("Expressions") says which part of a text counts, in which order, and why. Each scan is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from harness.metrics.own_answer import NEXT_QUESTION, OFFERS, own_turn

RULE = "2"
_STATED = 1000  # characters read after "the answer is"
_STATEMENTS = 50  # as many are read, from the end

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?P<bare>[^\s{}$]+))|\\[{}]|[{}]")
_BETWEEN = re.compile(r"\\[()\[\]]|\\q?quad\b|\\[,;! ]|\\text|[\s$*{}.]")
_SEPARATORS = {"", ",", ";", "and", ",and", "or", ",or"}
_DELIMITER = re.compile(r"\\\\|\\\$|\$\$|\$|\\[()\[\]]")
_CLOSES = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_PROSE = re.compile(r"[A-Za-z]{2,}[,.]? +[A-Za-z]{2,}")
_STATEMENT = re.compile(
    r"(?P<final>final[ \t]+)?\banswers?\b[*_]{0,3}"
    r"(?:[ \t]{0,4}(?:to|of|for)[ \t][^.\n:=]{0,80}?)?"
    r"(?:\s{0,4}[*_]{0,3}(?:\b(?:is|are)\b|=|:)|[ \t*_#]{0,8}\n)[\s:*_#>]{0,40}",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:(?:therefore|thus|hence|then|just|simply|exactly|indeed|approximately|about|given by|equal to|as follows)\b[\s,:*]{0,8})*",
    re.IGNORECASE,
)
_REASON = re.compile(r"\s(?:because|since|which|where|when|so|but)\s|,\s+as\s|\.(?=\s|$)|[,;]?\n", re.IGNORECASE)
_NO_ANSWER = re.compile(r"(?:not|correct|right|wrong|incorrect|below|above|clear|unknown)\b", re.IGNORECASE)
# What is said after an answer and is none.
_OFFER = re.compile(rf"\b(?:{OFFERS}|hope|need (?:any|more|further)|verif|double-check|checked)", re.IGNORECASE)
_LEAD = re.compile(
    r"^(?:(?:and|so|thus|hence|then|therefore|finally|we get|we have|it is|it follows that)\b[\s,:]{1,4}){1,4}",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^[ \t>]*(?:```|~~~)[^\n]*$", re.MULTILINE)
_NUMBER = re.compile(r"(?<!\bnot )-?(?:\d[\d,]*)?\.?\d+(?:/\d+)?")
_BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*")
_REMARK = re.compile(r"(?<=[\w°%])\s\((?:[^()\n]{0,100}[A-Za-z]{2}[^()\n]{0,100}|[^()\n]{1,20}%)\)")  # "7/20 (or 35%)"
# "The vertex is at (2, -1)", "the distance is 3√13"; after a number units or reasons may follow, and the number counts.
_VALUE = re.compile(
    r"\b(?:is|are|equals)\s(?:(?:at|equal to|exactly|simply|then|therefore|the point)\s){0,2}([^A-Za-z\s]{0,60}[√π()\[\]∪∞][^\n]{0,99})$"
)
_UNIT = re.compile(r"\s[A-Za-z]{2,}")
_ALIGNED = re.compile(
    r"\\begin\{(?:align|aligned|gather|gathered|split|equation)\*?\}|\\end\{[a-z]{1,20}\*?\}|\\tag\{[^{}]*\}|&"
)


def find_answer(text: str) -> str | None:
    r"""Return the final answer of a text, None where it gives none.

    Boxes come first, then what is stated ("the answer is"), then the last formula, then the last line. In a text that goes on with
    another problem, the first that is solved counts.
    """
    text = own_turn(text)
    starts = [0, *(match.start() for match in NEXT_QUESTION.finditer(text)), len(text)]
    parts = [part for start, end in pairwise(starts) if (part := text[start:end]).strip()]
    rules: tuple[Callable[[str], str | None], ...] = (_boxed, _stated)
    for rule in rules:
        for part in parts:
            if answer := rule(part):
                return answer
    return (_last_formula(parts[0]) or _last_line(parts[0])) if parts else None


def _boxed(text: str) -> str | None:
    """The content of the last box that is closed, of those that are written as alternatives or as a list all of them."""
    boxes = _boxes(text)
    if not boxes:
        return None
    start, _, answer = boxes[-1]
    for before_start, before_end, content in reversed(boxes[:-1]):
        separator = _BETWEEN.sub("", text[before_end:start]).lower() if start - before_end < 60 else None
        if separator not in _SEPARATORS or content == answer:
            break
        answer = f"{content} or {answer}" if separator.endswith("or") else f"{content}, {answer}"
        start = before_start
    return answer


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the closed boxes that hold something and no other box, in the order of their starts."""
    open_braces: list[tuple[int, int] | None] = []  # where a box and its content begin, None for other braces
    found: list[tuple[int, int, str]] = []
    for match in _BOX.finditer(text):
        sign = match[0]
        if match["bare"]:
            content = match["bare"].rstrip(".,;:!?*)")
            found.append((match.start(), match.start("bare") + len(content), content))
        elif sign in (r"\{", r"\}"):
            continue
        elif sign != "}":
            open_braces.append(None if sign == "{" else (match.start(), match.end()))
        elif open_braces and (box := open_braces.pop()) is not None and not (found and found[-1][0] > box[0]):
            found.append((box[0], match.end(), text[box[1] : match.start()]))
    return [(start, end, tidied) for start, end, content in found if (tidied := tidy(content))]


def _stated(text: str) -> str | None:
    """What follows the last "final answer is", or the last "answer is" or "Answer:"."""
    stated = None
    for match in reversed(list(_STATEMENT.finditer(text))[-_STATEMENTS:]):
        if stated is not None and match["final"] is None:
            continue
        if answer := _after_statement(text[match.end() : match.end() + _STATED]):
            if match["final"] is not None:
                return answer
            stated = answer
    return stated


def _after_statement(text: str) -> str | None:
    if filler := _FILLER.match(text):
        text = text[filler.end() :]
    if _NO_ANSWER.match(text) or _OFFER.match(text):
        return None
    formulas = list(_formulas(text))
    if formulas and not text[: formulas[0][0]].strip(" \t\n*_-"):
        end, answer = formulas[0][1], formulas[0][2]
        for start, next_end, content in formulas[1:]:
            separator = _BETWEEN.sub("", text[end:start]).lower()
            if separator not in _SEPARATORS:
                break
            answer = f"{answer} or {content}" if separator.endswith("or") else f"{answer}, {content}"
            end = next_end
        return tidy(answer)
    sentence = _REASON.split(_FENCE.sub("", text).strip(), maxsplit=1)[0]
    inside = list(_formulas(sentence))
    if inside and not re.search(r"\d", sentence[: inside[0][0]]):
        return tidy(inside[-1][2])  # "Answer: The value is $5$"
    return _of_a_line(sentence)


def _last_formula(text: str) -> str | None:
    """The last formula between delimiters of TeX, of a display with several rows what the last one comes to."""
    last = None
    for _, _, content in _formulas(text):
        last = tidy(content) or last
    return last


def _formulas(text: str) -> Iterator[tuple[int, int, str]]:
    r"""Yield (start, end, content) of what stands between $, $$, \( \) and \[ \]. A sign of money opens none."""
    opened: tuple[int, int, str] | None = None
    for match in _DELIMITER.finditer(text):
        sign = match[0]
        if sign in ("\\\\", r"\$"):
            continue
        if opened is None or (opened[2].startswith("$") and sign in (r"\(", r"\[")):
            opened = (match.start(), match.end(), sign) if sign in _CLOSES else None
        elif sign == _CLOSES[opened[2]]:
            content = text[opened[1] : match.start()]
            if sign == "$" and ("\n\n" in content or ("\\" not in content and _PROSE.search(content))):
                opened = (match.start(), match.end(), sign)
                continue
            if content.strip():
                yield opened[0], match.end(), content
            opened = None


def _last_line(text: str) -> str | None:
    lines = [line for line in _FENCE.sub("", text).splitlines() if line.strip(" \t*_`#>-|=")]
    while len(lines) > 1 and _OFFER.search(lines[-1][:1000]):
        lines.pop()
    if not lines:
        return None
    return _of_a_line(_LEAD.sub("", lines[-1].strip().lstrip("#> "), count=1))


def _of_a_line(text: str) -> str | None:
    """A line that is an answer, or of one that is a sentence what it ends in: in bold, right of its last "=" or "is", or its last number."""
    line = tidy(text)
    if line is None or not _PROSE.search(line):
        return line
    if (bold := _stressed(line)) is not None:
        return bold
    line = _REMARK.sub("", line)
    if "=" in line:
        return tidy(line.rpartition("=")[2])
    if value := _VALUE.search(line):
        said = value[1] if not _PROSE.search(value[1]) else _UNIT.split(value[1], maxsplit=1)[0]
        if re.search(r"[\dπ∞]", said):
            return tidy(said)
    numbers = _NUMBER.findall(line)
    return numbers[-1] if numbers else line


def _stressed(line: str) -> str | None:
    """The last bold part that has a digit, or ends the line; "**Therefore**, the sum is 18" stresses no answer."""
    for bold in reversed(list(_BOLD.finditer(line))):
        answer = tidy(bold[1])
        is_value = any(letter.isdigit() for letter in bold[1]) or not line[bold.end() :].strip(" .!")
        if is_value and answer and not _PROSE.search(answer) and not answer.startswith("not "):
            return answer
    return None


def tidy(answer: str) -> str | None:
    """Return an answer without what stands around it: space, delimiters, Markdown, a full stop; None where nothing is left."""
    if r"\begin{" in answer and "matrix" not in answer and "cases" not in answer and "array" not in answer:
        rows = [row for row in _ALIGNED.sub(" ", answer).split("\\\\") if row.strip()]
        answer = rows[-1].rpartition("=")[2] if rows else ""
    for _ in range(8):
        before = answer
        answer = answer.strip().strip("`").rstrip(",;:!").strip()
        answer = answer.removesuffix("\\").removesuffix(r"\.")
        if answer.endswith(".") and not answer.endswith(r"\right."):
            answer = answer[:-1]
        for opening, closing in (
            ("$$", "$$"),
            ("$", "$"),
            (r"\(", r"\)"),
            (r"\[", r"\]"),
            ("**", "**"),
            ("__", "__"),
            ("*", "*"),
        ):
            if len(answer) > len(opening) and answer.startswith(opening) and answer.endswith(closing):
                answer = answer[len(opening) : -len(closing)]
        if answer.endswith("**") and answer.count("**") == 1:
            answer = answer[:-2]
        if answer == before:
            break
    return answer or None
