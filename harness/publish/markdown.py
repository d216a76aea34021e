"""Text from elsewhere in a model card: names of models, data and tasks may hold anything, and the hub renders what it gets."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What Markdown could take for markup within a line, at its start, and for an address that becomes a link.
_MARKUP = re.compile(r"[\\`*_\[\]|~$>]|^[#+=-]|^\d+(?=[.)])|(?<=:)//|(?<=www)\.|@")
_LONGEST = 300  # characters of one name


def text(value: object) -> str:
    """A name or a number within a line: no markup, no HTML, no line end."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
    return _MARKUP.sub(_shown, line.replace("&", "&amp;")).replace("<", "&lt;")


def _shown(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"


def link(label: object, address: str) -> str:
    """A link, for addresses of https alone; any other label stays a text."""
    return f"[{text(label)}]({address})" if re.fullmatch(r"https://[\w./@:%?=&+~-]+", address) else text(label)


def fenced(content: str, language: str = "") -> str:
    """A block of code that nothing within can close."""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in content)
    return f"{fence}{language}\n{shown.rstrip()}\n{fence}\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
