"""The documentation uses the field's words: those of docs/glossary.md, and not the ones that it replaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from harness.cli import COMMANDS, main
from helpers.paths import ROOT
from helpers.words import COINED, coined_words

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "glossary.md"),
    ROOT / "examples" / "README.md",
    *sorted(ROOT.glob("tasks/*/README.md")),
    *sorted(ROOT.glob(".github/**/*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_no_coined_words(page: Path) -> None:
    found = coined_words(page.read_text(encoding="utf-8"))
    assert not found, "\n".join(f"{page.relative_to(ROOT)}:{entry}" for entry in found)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that help lists, subcommands too."""
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        yield name, command
        for own, subcommand in command.commands.items() if isinstance(command, click.Group) else ():
            if not subcommand.hidden:
                yield f"{name} {own}", subcommand


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_help_has_no_coined_words_and_an_example(name: str, command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name=name))
    assert coined_words(text) == []
    assert f"harness {name}" in text or isinstance(command, click.Group)


def test_a_coined_word_is_found_also_across_lines() -> None:
    assert coined_words("the teacher's\nsignal is mended") == [
        f"1: teacher's signal (write: {next(iter(COINED.values()))})",
        "2: mended (write: repaired)",
    ]
    assert coined_words("The standard deviation of held-out items stands out.") == []
    assert coined_words("The old key `teacher_signal` is accepted.") == []
