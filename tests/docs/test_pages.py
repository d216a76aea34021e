"""Every page of the documentation begins with its purpose and a command, and what it links to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from helpers.paths import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "examples" / "README.md", *DOCS, *sorted(ROOT.glob("tasks/*/README.md"))]
COMMAND = re.compile(
    r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:harness |make |python |\.venv/bin/|pip |import |from )", re.MULTILINE
)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS, ids=_name)
def test_a_page_begins_with_its_purpose_and_a_command(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()[:30]
    assert lines[0].startswith("# ")
    assert re.match(r"[\w`*]", lines[2]), "after the heading a paragraph says what the page is for"
    code = [line for line in _code(lines) if COMMAND.match(line)]
    assert code, "a command or Python within the first 30 lines"


def _code(lines: list[str]) -> list[str]:
    """The lines of code blocks, fenced or indented."""
    fenced, code = False, []
    for line in lines:
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            code.append(line)
    return code


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{_name(page)}: {target} does not exist"
        assert not anchor or anchor in _anchors(linked), f"{_name(page)}: {target} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:dskd|harness|tests|examples)/[\w/.-]+\.(?:py|yaml|json)\b", text):
        if not name.endswith(("/NAME.py", "/stepwise.py")):  # the engine that docs/engines.md builds
            assert (ROOT / name).exists(), f"{_name(page)}: {name} does not exist"


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = set(re.findall(r"[\w-]+\.md", str(navigation)))
    assert listed == {page.name for page in DOCS}


def test_pages_that_the_code_names_exist() -> None:
    sources = [path for folder in ("dskd", "harness", "tasks", "tests") for path in (ROOT / folder).rglob("*.py")]
    named = {
        (name, path.relative_to(ROOT).as_posix())
        for path in sources
        for name in re.findall(r"\bdocs/[\w-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert [entry for entry in sorted(named) if not (ROOT / entry[0]).exists()] == []
