r"""Takes the dress off a text that holds numbers: other scripts' digits, invisible letters, LaTeX, HTML and currency signs.

What is left has ASCII digits and minus signs, a/b for every fraction, ^ for every exponent, and bold as `**`. Every step is one
pass over the text, whatever the text.
"""

from __future__ import annotations

import re
import unicodedata

_SPACES = "Zs"  # no-break, narrow no-break, thin, figure and ideographic spaces
_INVISIBLE = "Cf"  # zero-width spaces and joiners, marks of direction, soft hyphens, byte order marks
_MINUS = "\N{MINUS SIGN}\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{EN DASH}\N{SMALL HYPHEN-MINUS}\N{FULLWIDTH HYPHEN-MINUS}"
_OTHERS = {
    **dict.fromkeys(_MINUS, "-"),
    **dict.fromkeys("\N{RIGHT SINGLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}", "'"),
    "\N{ARABIC DECIMAL SEPARATOR}": ".",
    "\N{ARABIC THOUSANDS SEPARATOR}": ",",
    "\N{FRACTION SLASH}": "/",
    "\N{DIVISION SLASH}": "/",
    "\N{ASTERISK OPERATOR}": "\N{MULTIPLICATION SIGN}",
    "\N{DOT OPERATOR}": "\N{MIDDLE DOT}",
    "\N{ALMOST EQUAL TO}": "=",
    "\N{IDENTICAL TO}": "=",
    "\N{IDEOGRAPHIC FULL STOP}": ". ",
    "\N{FULLWIDTH EXCLAMATION MARK}": "! ",
    "\N{FULLWIDTH QUESTION MARK}": "? ",
    "\N{RIGHTWARDS ARROW}": "; ",
    "\N{RIGHTWARDS DOUBLE ARROW}": "; ",
    "\N{THEREFORE}": "; ",
}
_SUPERSCRIPT = re.compile("[\N{SUPERSCRIPT MINUS}]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_VULGAR = re.compile("(?P<whole>[0-9]?)(?P<fraction>[¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])")
_TAGS = {
    "b": "**",
    "strong": "**",
    "sup": "^",
    "answer": "\nFinal answer: ",
    "br": "\n",
    "p": "\n",
    "li": "\n",
    "tr": "\n",
}
_TAG = re.compile(r"<(/?)([a-zA-Z]{1,10})\s?/?>")
_CALCULATOR = re.compile(r"<<[^<>=\n]{0,200}=([^<>=\n]{0,30})>>(?P<repeated>(?=[-.0-9]))?")  # GSM8K's own: <<9*2=18>>18

_ARGUMENT = r"\{([^{}]{1,200})\}"
_FRACTION = re.compile(rf"\\[dtc]?frac\s*(?:{_ARGUMENT}\s*{_ARGUMENT}|{_ARGUMENT}\s*([0-9])|([0-9])\s*{_ARGUMENT})")
# Without braces TeX takes one digit each. Where that leaves digits over (\frac 18 2, \frac182), a whole number over one was meant.
_BARE_FRACTION = re.compile(
    r"\\[dtc]?frac\s*(?:(?<=\s)(-?[0-9]{1,20}) ([0-9]{1,20})|([0-9]) ([0-9])|([0-9]{1,9})([0-9]))(?![0-9])"
)
_GROUPED = re.compile(r"\{,\}|,\\!")
_THIN = re.compile(r"\\(?:[,;: ]|thinspace\b|quad\b|qquad\b)|~")
_COMMANDS = {
    **dict.fromkeys(("times", "cdot", "ast"), "\N{MULTIPLICATION SIGN}"),
    "div": "\N{DIVISION SIGN}",
    **dict.fromkeys(("approx", "equiv"), "="),
    **dict.fromkeys(("implies", "Rightarrow", "rightarrow", "to", "therefore"), "; "),
    "sqrt": "\N{SQUARE ROOT}",
    "pi": "\N{GREEK SMALL LETTER PI}",
}
_BOLD = re.compile(r"\\(?:textbf|mathbf|boldsymbol)\s?\{([^{}]{1,200})\}")
_COMMAND = re.compile(r"\\([a-zA-Z]{1,30})\*?")
_EXPONENT = re.compile(r"\^\s?\{\s?([-+]?[0-9]{1,9})\s?\}")
_CURRENCY_CODE = re.compile(r"(?<![A-Za-z])(?:USD|EUR|GBP|INR|CHF|JPY|CNY|RMB|CAD|AUD|Rs\.?|kr\.?)(?=-?[0-9])")
_TIMES = re.compile(r"(?<=[0-9])( ?)[xX]( ?)(?=[-$€£¥₹]?[0-9])")
_CITATION = re.compile(r"(?<=[.!?A-Za-z])\[[0-9]{1,2}\]")
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9_])_{1,2}(?=[-$0-9])")


def plain(text: str) -> str:
    """Return a text without what only dresses its numbers up."""
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: "^" + "".join(map(_superscript, match[0])), text)
        text = text.translate({ord(letter): _plain_letter(letter) for letter in set(text) if letter > "\x7f"})
        text = _VULGAR.sub(_vulgar, text)
    if "<" in text:
        text = _TAG.sub(_tag, _CALCULATOR.sub(_calculated, text))
    text = text.replace("&nbsp;", " ")
    if "\\" in text or "{" in text:
        text = _without_latex(text)
    text = _CITATION.sub("", _TIMES.sub(r"\1×\2", text))
    # A sign before a currency belongs to the number after it.
    text = text.replace("-$", "-").replace("$", " ")
    return _EMPHASIS.sub(" ", _CURRENCY_CODE.sub(" ", text))


def _superscript(letter: str) -> str:
    return "-" if letter == "\N{SUPERSCRIPT MINUS}" else str(unicodedata.digit(letter))


def _vulgar(match: re.Match[str]) -> str:
    fraction = unicodedata.normalize("NFKC", match["fraction"]).replace("\N{FRACTION SLASH}", "/")
    return f"{match['whole']} {fraction}" if match["whole"] else fraction


def _plain_letter(letter: str) -> str:
    if letter in _OTHERS:
        return _OTHERS[letter]
    category = unicodedata.category(letter)
    if letter.isdecimal():
        return str(unicodedata.decimal(letter))
    if category in (_SPACES, _INVISIBLE):
        return " " if category == _SPACES else ""
    if "\N{FULLWIDTH EXCLAMATION MARK}" <= letter <= "\N{FULLWIDTH TILDE}":
        return chr(ord(letter) - 0xFEE0)
    return letter


def _calculated(match: re.Match[str]) -> str:
    return "" if match["repeated"] is not None else match[1]


def _tag(match: re.Match[str]) -> str:
    name = match[2].lower()
    if match[1]:
        return _TAGS[name] if name in ("b", "strong") else "\n" if name == "answer" else ""
    return _TAGS.get(name, "")


def _without_latex(text: str) -> str:
    text = _THIN.sub(" ", _GROUPED.sub(",", text)).replace("\\!", "")
    for mark in "$%#&_":
        text = text.replace("\\" + mark, mark)
    text = _FRACTION.sub(_over, text)
    text = _BARE_FRACTION.sub(_over, text)
    text = _BOLD.sub(r"**\1**", text)
    text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], " "), text)
    text = _EXPONENT.sub(r"^\1", text)
    # Two groups are two things; what else is left of LaTeX holds nothing.
    return re.sub(r"\\[()\[\]]|\\\\", " ", text.replace("}{", " ")).replace("{", "").replace("}", "").replace("\\", "")


def _over(match: re.Match[str]) -> str:
    parts = [part.strip() for part in match.groups() if part is not None]
    return f" {parts[0]}/{parts[1]} "
