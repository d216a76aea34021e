r"""Writes an answer as LaTeX: what models write in Unicode or as in a programming language, and LaTeX in other habits than MATH's."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_SIGNS = {
    **dict.fromkeys("−–‐‑﹣", "-"),
    **dict.fromkeys("×⋅·∙•∗✕", r"\cdot "),
    **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
    **dict.fromkeys("\u2018\u2019\u201c\u201d", ""),
    "π": r"\pi ",
    "∞": r"\infty ",
    "°": r"^\circ ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R} ",
    "θ": r"\theta ",
    "α": r"\alpha ",
    "β": r"\beta ",
    "λ": r"\lambda ",
    "φ": r"\phi ",
    "ω": r"\omega ",
}
_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"
_RAISED = re.compile(f"[{_SUPERSCRIPTS}]+")
_LOWERED = re.compile(f"[{_SUBSCRIPTS}]+")
_ROOT_OF = re.compile(r"[√∛∜]\s?(?:(\()|(\d+(?:\.\d+)?|[A-Za-z](?![A-Za-z])))?")
_FUNCTION = re.compile(r"(?<![A-Za-z\\])(sqrt|cbrt)\s?\(")
_WORDS = [
    (re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s?\.?(?=\s?[()\[\]{}|\\/.])"), ""),
    (re.compile(r"\\(?:displaystyle|textstyle|limits|nolimits|boldsymbol|phantom\{[^{}]*\})(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:mathbf|textbf|boldsymbol|bm)\s?\{(-?[0-9][0-9.,]*)\}"), r"\1"),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s+(\d{2,})\s+(\d+)"), r"\\frac{\1}{\2}"),  # "\frac 18 2": nobody writes an eighth of two so
    (re.compile(r"(?<=\d)(?:\\!|\\,|\\ |\{,\}|,\s?\\!\s?|[ '_])(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\[,;:! ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\*\*|\^\s?\*"), "^"),
    (re.compile(r"(?<![\\])\*"), r"\\cdot "),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"\+/-"), r"\\pm "),
    (re.compile(r"(?<![A-Za-z\\])(?:infinity|infty|oo|inf)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(r"(?<=\d)pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(r"(?<![A-Za-z\\])(sin|cos|tan|cot|sec|csc|log|ln)(?=\s?\()"), r"\\\1"),
    (re.compile(r"\^\s?(-?\d{2,})"), r"^{\1}"),
    (re.compile(r"\s?(?:degrees?|\\deg(?:ree)?)(?![A-Za-z])"), r"^\\circ "),
    (re.compile(r"\\(?:text|mathrm|mbox)\s?\{\s?\^\\circ \s?\}"), r"^\\circ "),
    (re.compile(r"\^\{\s?\\circ\s?\}"), r"^\\circ "),
    (re.compile(r"(?<!\\)%"), r"\\%"),
    (re.compile(r"\\%\\%"), r"\\%"),
    (re.compile(r"^(?:US)?(?:\\?\$|€|£)\s?(?=[\d.])"), ""),
]


def as_latex(answer: str) -> str:
    r"""Return an answer as LaTeX: ½ as \frac{1}{2}, x² as x^{2}, sqrt(2)/2 as \sqrt{2}/2, full-width digits as digits."""
    text = "".join(map(_written, answer))
    text = _RAISED.sub(lambda match: "^{" + "".join(map(_plain, match[0])) + "}", text)
    text = _LOWERED.sub(lambda match: "_{" + "".join(map(_plain, match[0])) + "}", text)
    text = _roots(text)
    for pattern, replacement in _WORDS:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def _plain(letter: str) -> str:
    return unicodedata.normalize("NFKC", letter).replace("−", "-")


def _written(letter: str) -> str:
    if letter.isascii() or letter in _ROOTS or letter in _SUPERSCRIPTS or letter in _SUBSCRIPTS:
        return letter
    if (sign := _SIGNS.get(letter)) is not None:
        return sign
    if letter.isdecimal():
        return str(unicodedata.digit(letter))
    plain = unicodedata.normalize("NFKC", letter)
    if "⁄" in plain:  # a fraction in one character
        over, _, under = plain.partition("⁄")
        return f"\\frac{{{over}}}{{{under}}}" if over and under else letter
    return plain if plain.isascii() and plain else letter


def _roots(text: str) -> str:
    """Roots with their arguments in braces; an argument in parentheses that do not close is left as it is."""
    closing = _closing_parentheses(text)
    ends: dict[int, str] = {}

    def braced(match: re.Match[str], command: str) -> str:
        end = closing.get(match.end() - 1)
        if end is None:
            return match[0]
        ends[end] = "}"
        return command + "{"

    def root(match: re.Match[str]) -> str:
        command = _ROOTS[match[0][0]]
        if match[1]:
            return braced(match, command)
        return f"{command}{{{match[2]}}}" if match[2] else command

    def function(match: re.Match[str]) -> str:
        return braced(match, r"\sqrt" if match[1] == "sqrt" else r"\sqrt[3]")

    return _replaced(text, [(_ROOT_OF, root), (_FUNCTION, function)], ends)


def _replaced(
    text: str, rules: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]], ends: dict[int, str]
) -> str:
    """The text with the matches of each rule replaced, and then single characters at `ends`, which the rules fill."""
    matches = sorted(
        (match.start(), match.end(), rule(match)) for pattern, rule in rules for match in pattern.finditer(text)
    )
    parts, at = [], 0
    for start, end, replacement in [*matches, (len(text), len(text), "")]:
        parts += [ends.get(index, text[index]) for index in range(at, start)]
        parts.append(replacement)
        at = end
    return "".join(parts)


def _closing_parentheses(text: str) -> dict[int, int]:
    """Where the parenthesis that is opened at a place is closed."""
    opened: list[int] = []
    closing = {}
    for index, letter in enumerate(text):
        if letter == "(":
            opened.append(index)
        elif letter == ")" and opened:
            closing[opened.pop()] = index
    return closing
