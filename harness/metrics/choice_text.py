r"""What a chat model puts around an answer: markup, `\boxed{}`, words that announce it, offers of help, an invented next question."""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator

from harness.metrics.own_answer import NEXT_QUESTION, OFFERS

_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060\u00ad"), None)
_PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "−": "-", "–": "-", "—": "-", "\r": "\n"})
_TEXT_COMMAND = re.compile(
    r"\\(?:text|textbf|textit|texttt|mathrm|mathbf|mathit|mathsf|mathtt|bf)\s?\{([^{}]{0,200})\}"
)
_MATH_SIGNS = re.compile(r"\\[()\[\],;! ]|\$|\\quad|\\left|\\right")
_MARKDOWN = re.compile(r"\*\*|__|`+|(?m:^ {0,3}#{1,6} +)|(?<![\w*])\*(?=\S)|(?<=\S)\*(?![\w*])")
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{")
_MOST_BOXES = 20
_MOST_MARKS = 40
_BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*|(?<!\w)__([^_\n]{1,300})__(?!\w)")
_IS = r"(?:\b(?:is|are|was|would\ be|should\ be|must\ be|will\ be)\b|:|=|\s-\s)\s*[:=]?"
_MARK = re.compile(
    rf"""\banswer\b(?!\s+(?:choices|options))[^.?!\n:=]{{0,60}}?{_IS}
    |\b(?:correct|right|best|final|chosen|my)\s+(?:option|choice|letter|one|statement|sentence|result|verdict|conclusion|output|order
        |list|sequence|edit|count|number|total|value)\b[^.?!\n:=]{{0,60}}?{_IS}
    |\b(?:choose|pick|select|go\ with|going\ with)\b(?!\s+(?:the|one|between|from|(?-i:an?))\b)
    |^[^\w\n]{{0,9}}(?:final\ |correct\ )?answer[\s:*#_]{{0,9}}$""",
    re.IGNORECASE | re.VERBOSE | re.MULTILINE,
)
_OFFER = re.compile(rf"^\W{{0,9}}(?:{OFFERS})", re.IGNORECASE)


def plain(text: str, *, mathematics: bool = True) -> str:
    r"""Return the text without what only dresses an answer up: bold, code, headings, LaTeX's \text{} and, with `mathematics`, its signs."""
    text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE).translate(_PLAIN)
    text = _ANSWER_TAG.sub(lambda match: "\n" if match[1] else "\nAnswer: ", text)
    text = _TEXT_COMMAND.sub(lambda match: match[1], text).replace(r"\{", "{").replace(r"\}", "}")
    if mathematics:
        text = _MATH_SIGNS.sub(" ", text)
    return _MARKDOWN.sub("", text)


def boxed(text: str) -> Iterator[str]:
    r"""The contents of \boxed{}, the last first; braces that LaTeX escapes close nothing."""
    starts = [match.end() for match in _BOX.finditer(text)][-_MOST_BOXES:]
    for start in reversed(starts):
        depth, place = 1, start
        while place < min(len(text), start + 1000):
            letter = text[place]
            if letter == "\\":
                place += 1
            elif letter in "{}":
                depth += 1 if letter == "{" else -1
                if depth == 0:
                    yield text[start:place]
                    break
            place += 1


def announced(text: str) -> Iterator[str]:
    """What follows the words that announce an answer, the last first, to the end of the text."""
    for match in reversed(deque(_MARK.finditer(text), maxlen=_MOST_MARKS)):
        yield text[match.end() :].lstrip()


def bold(text: str) -> list[str]:
    """The bold parts, in order."""
    return [match[1] or match[2] for match in _BOLD.finditer(text)]


def before_next_question(text: str) -> str:
    """The text up to a line on which the model goes on to a question of its own; all of it where there is none."""
    for match in NEXT_QUESTION.finditer(text):
        if text[: match.start()].strip():
            return text[: match.start()]
    return text


def without_offers(text: str) -> str:
    """The text without lines at its end that offer help, or thank."""
    lines = text.rstrip().split("\n")
    while len(lines) > 1 and (not lines[-1].strip() or _OFFER.match(lines[-1])):
        lines.pop()
    return "\n".join(lines)
