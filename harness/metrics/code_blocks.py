"""The blocks of code in a chat model's answer: between fences, between tags, or as lines that look like code.

Blocks are found as CommonMark finds them (`tests/harness/metrics/test_code_blocks.py` compares with markdown-it), and besides in
the forms that chat models write and CommonMark does not know: any indentation, a fence at the end of a line of prose or of code,
words after a closing fence, a block that a second opening ends, and a fence within a docstring, which ends nothing.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass

PYTHON = frozenset({"", "py", "python", "python2", "python3", "py3", "pycon", "ipython", "ipython3", "sage"})

# Characters that show nothing or look like a space: outside of strings Python knows none of them.
_NOTHING = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad"
_BLANKS = "\u00a0\u2000-\u200a\u202f\u205f\u3000"
_INVISIBLE = re.compile(f"[{_NOTHING}{_BLANKS}]")
_TOKENS = re.compile(
    r'(?P<kept>"""(?:[^\\]|\\.)*?"""|\'\'\'(?:[^\\]|\\.)*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|#[^\n]*)'
    rf"|(?P<nothing>[{_NOTHING}]+)|(?P<blank>[{_BLANKS}])",
    re.DOTALL,
)
_CONTAINERS = r"(?:[ \t]*(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t])))*[ \t]*"
_OPENING = re.compile(rf"(?P<before>{_CONTAINERS})(?P<fence>`{{3,}}|~{{3,}})(?P<info>.*)$")
_LANGUAGE = re.compile(r"[\s{.]*([\w+#-]*)")
_WORD = re.compile(r"[A-Za-z][\w+.#-]*[ \t]*$|[ \t]*$")
_QUOTE = re.compile(r"[ \t]*>[ ]?")
_QUOTED = re.compile(r"[ \t]*>(?!>)[ ]?")
_STRINGS = re.compile(r'\\.|"""|\'\'\'|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|#.*')
_TRIPLE = re.compile(r'\\.|"""|\'\'\'')
_TAG = re.compile(r"\[PYTHON\]|(?:<pre\b[^<>]{0,200}>\s{0,20})?<code\b[^<>]{0,200}>|<pre\b[^<>]{0,200}>", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A piece of an answer that is marked as code, or looks like it.

    `language` is what its fence names, in lower case; `closed` is False where the answer ends within it.
    """

    text: str
    language: str = ""
    closed: bool = True


@dataclass(frozen=True)
class _Fence:
    character: str
    length: int
    language: str
    quotes: int  # how many `>` stand before each of its lines
    indentation: int  # how many characters of indentation its lines share with it


def visible(code: str) -> str:
    """Return code without what cannot be seen: no-break and other odd spaces become spaces, zero-width characters nothing.

    What stands in strings and comments stays as it is.
    """
    if not _INVISIBLE.search(code):
        return code
    return _TOKENS.sub(lambda match: match["kept"] or ("" if match["nothing"] else " "), code)


def lines_of(text: str) -> list[str]:
    """Return the lines as Python counts them: a form feed or a line separator ends none."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def fenced_blocks(answer: str) -> list[Block]:
    """Return the blocks between fences, in their order."""
    lines, blocks, number = lines_of(answer), [], 0
    docstrings = True
    while number < len(lines):
        fence = _opening(lines[number])
        if fence is None:
            blocks += _on_one_line(lines[number])
            number += 1
            continue
        block, end, in_string = _content(lines, number + 1, fence, docstrings)
        if in_string and not block.closed:
            # What looked like an open string was none, and hid the closing fence. Once is enough: this stays linear.
            docstrings = False
            block, end, _ = _content(lines, number + 1, fence, docstrings)
        blocks.append(block)
        number = end
    return blocks


def tagged_blocks(answer: str) -> list[Block]:
    """Return what stands between [PYTHON] and [/PYTHON], or <pre> or <code> and its end, in their order."""
    blocks, at = [], 0
    while opening := _TAG.search(answer, at):
        tag = opening[0].lower()
        closing = "[/PYTHON]" if tag.startswith("[") else ("</code>" if "<code" in tag else "</pre>")
        end = answer.find(closing, opening.end())
        text = answer[opening.end() : end if end >= 0 else len(answer)]
        blocks.append(Block(text if tag.startswith("[") else html.unescape(text), closed=end >= 0))
        if end < 0:
            break
        at = end + len(closing)
    return blocks


def after_line(line: str, quote: str | None) -> str | None:
    """Return the triple quote that is open after a line of Python, where `quote` is open before it; None for none."""
    at = 0
    while match := (_TRIPLE if quote else _STRINGS).search(line, at):
        if quote:
            quote = None if match[0] == quote else quote
        elif match[0] in ('"""', "'''"):
            quote = match[0]
        at = match.end()
    return quote


def unquoted(line: str) -> str:
    """Return a line without a mark of quotation before it (`> `)."""
    match = _QUOTED.match(line)
    return line[match.end() :] if match else line


def _opening(line: str) -> _Fence | None:
    """Return the fence that a line opens: at its start after marks of lists and quotes, or at its end after words."""
    if "```" not in line and "~~~" not in line:
        return None
    line = _INVISIBLE.sub(lambda match: "" if match[0] in _NOTHING else " ", line)
    match = _OPENING.match(line)
    if match and not (match["fence"][0] == "`" and "`" in match["info"]):
        before, fence, info = match["before"], match["fence"], match["info"]
    else:
        before, _, rest = line.partition("```")
        fence, info = "```", rest.lstrip("`")
        if "`" in before or not _WORD.match(info):
            return None
        before = ""
    quotes = before.count(">")
    within = before.rpartition(">")[2].removeprefix(" ") if quotes else before
    language = _LANGUAGE.match(info)
    named = language[1].lower() if language else ""
    return _Fence(fence[0], len(fence), named, quotes, len(within))


def _on_one_line(line: str) -> list[Block]:
    """The code between two fences on one line: ```python x = 1```."""
    parts = line.split("```") if "```" in line else []
    if len(parts) != 3 or parts[2].startswith("`"):
        return []
    word, _, rest = parts[1].strip().partition(" ")
    return [Block(rest if word.lower() in PYTHON else parts[1].strip())]


def _content(lines: list[str], start: int, fence: _Fence, docstrings: bool) -> tuple[Block, int, bool]:
    """Return the block that begins at a line, the number of the first line after it, and whether a string seemed to be open."""
    content: list[str] = []
    python, quote = fence.language in PYTHON, None
    hid = False
    for number in range(start, len(lines)):
        line = _within(lines[number], fence.quotes)
        if line is None:  # the quote ends, and what it holds
            return Block("\n".join(content), fence.language), number, False
        last, opens = _closing(line, fence, python)
        if last is not None and quote and docstrings:
            hid = True
        elif last is not None:
            content += [_dedented(last, fence.indentation)] if last.strip() else []
            return Block("\n".join(content), fence.language), number + (not opens), False
        content.append(_dedented(line, fence.indentation))
        quote = after_line(line, quote) if python and docstrings else None
    return Block("\n".join(content), fence.language, closed=False), len(lines), hid


def _closing(line: str, fence: _Fence, python: bool) -> tuple[str | None, bool]:
    """Return what stands before a closing fence in its line (None for no such fence), and whether the line opens a block anew."""
    if fence.character * 3 not in line:
        return None, False
    stripped = line.strip(f" \t{_NOTHING}\u00a0")
    run = len(stripped) - len(stripped.lstrip(fence.character))
    if run >= fence.length:
        rest = stripped[run:]
        return "", fence.character == "`" and rest[:1].isalpha() and _WORD.match(rest) is not None
    mark = fence.character * fence.length
    if python and stripped.endswith(mark) and stripped.count(fence.character) == fence.length and "#" not in stripped:
        return line.rstrip()[: -fence.length], False
    return None, False


def _within(line: str, quotes: int) -> str | None:
    at = 0
    for _ in range(quotes):
        mark = _QUOTE.match(line, at)
        if mark is None:
            return None
        at = mark.end()
    return line[at:]


def _dedented(line: str, most: int) -> str:
    indentation = len(line) - len(line.lstrip(" \t\u00a0"))
    return line[min(most, indentation) :]


_STRONG = re.compile(
    r"from\s+[\w.]+\s+import\b|import\s+[\w.]+(?:\s+as\s+\w+|\s*,.*)?\s*(?:#.*)?$|(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[(:]"
    r"|@\w[\w.]*(?:\(.*)?$|[A-Za-z_]\w*\s*(?::\s*[\w\[\], .]+)?=(?!=)|>>> "
)
_WEAK = re.compile(
    r"(?:if|for|while|with|try|else|elif|except|finally)\b.*:\s*(?:#.*)?$|(?:return|yield|raise|assert)\b|pass$|\.\.\. "
    r"|[A-Za-z_][\w.]*\(.*\)\s*(?:#.*)?$|[A-Za-z_][\w.\[\], ]*[-+*/%|&^@<>]{0,3}=(?!=)|#|[)\]}]"
)


def loose_blocks(answer: str, *, bodies: bool = False) -> list[Block]:
    """Return the runs of lines that look like Python, in an answer that does not mark its code.

    A run begins with an import, a definition, a decorator or an assignment, where `bodies` also with any statement, and takes the
    lines that are indented further, that look like Python, or that stand in a string.
    """
    return [Block("\n".join(run).rstrip("\n")) for run in _runs(lines_of(visible(answer)), bodies)]


def _runs(lines: list[str], bodies: bool) -> Iterator[list[str]]:
    run: list[str] = []
    base, quote = 0, None
    for original in lines:
        line = unquoted(original)
        stripped = line.lstrip(" \t")
        indentation = len(line) - len(stripped)
        begins = _STRONG.match(stripped) or (bodies and _WEAK.match(stripped))
        belongs = (
            quote or not stripped or indentation > base or (indentation == base and (begins or _WEAK.match(stripped)))
        )
        if run and not belongs:
            yield run
            run = []
        if run or begins:
            base = base if run else indentation
            run.append(line)
            quote = after_line(line, quote)
        else:
            quote = None
    if run:
        yield run
