"""Every `harness` command that the documentation shows is one that there is, with options that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from harness.cli import main
from helpers.paths import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(ROOT.glob("tasks/*/README.md")),
]
# In a block of code, indented or fenced, or in backquotes; the rest of a sentence is no command.
_IN_BLOCK = re.compile(r"^(?: {4}|)((?:[A-Z_]+=\S+ )*harness [a-z].*)$", re.MULTILINE)
_IN_LINE = re.compile(r"`((?:[A-Z_]+=\S+ )*harness [a-z][^`\n]*)`")


def _commands(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```(?:sh|bash|console|yaml)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = "\n".join(line for line in outside.splitlines() if line.startswith("    "))
    return [
        match.strip()
        for match in [*_IN_BLOCK.findall(blocks), *_IN_BLOCK.findall(indented), *_IN_LINE.findall(outside)]
    ]


CASES = [pytest.param(text, id=f"{page.relative_to(ROOT)}: {text[:60]}") for page in PAGES for text in _commands(page)]


def test_there_are_commands_in_the_pages() -> None:
    assert len(CASES) > 30


@pytest.mark.parametrize("text", CASES)
def test_it_is_a_command_with_options_that_exist(text: str) -> None:
    words = [
        word for word in shlex.split(text, comments=True) if not re.fullmatch(r"[A-Z_]+=\S*", word) or "--set" in text
    ]
    words = words[words.index("harness") + 1 :]
    for end in ("|", ">", "&&", ";", "||"):
        words = words[: words.index(end)] if end in words else words
    group: click.Command = main
    context = click.Context(main, info_name="harness")
    while isinstance(group, click.Group):
        name, words = words[0].rstrip(",.:"), words[1:]
        found = group.get_command(context, name)
        assert found is not None, f"there is no command {name!r}"
        if not words and isinstance(found, click.Group):
            return
        group, context = found, click.Context(found, info_name=name, parent=context)
    options = {
        option: parameter for parameter in group.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in words:
        if word.startswith("-") and word not in ("-h", "--help"):
            assert word.split("=")[0].rstrip(",.:") in options, f"harness {group.name} has no option {word}"
