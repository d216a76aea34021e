"""The table of chat templates in docs/templates.md is what the templates beside the repository give."""

from __future__ import annotations

import pytest

from helpers.chat_templates import FOLDER
from helpers.paths import ROOT


@pytest.mark.real
@pytest.mark.skipif(not FOLDER.is_dir(), reason="no chat templates beside the repository")
def test_the_table_lists_every_template_as_it_is() -> None:
    from helpers.template_table import table

    made = [[cell.strip() for cell in line.split(" | ")] for line in table().splitlines()[2:]]
    page = (ROOT / "docs" / "templates.md").read_text(encoding="utf-8")
    written = [
        [cell.strip() for cell in line.split(" | ")]
        for line in page.splitlines()
        if line.startswith("| `") and "/" in line
    ]
    assert written == made
