"""Templates over the columns of a user's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dskd.data.columns import apply_templates
from dskd.errors import InputError


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_text_and_numbers_go_into_templates_and_other_columns_do_not_matter(tmp_path: Path) -> None:
    path = written(
        tmp_path / "rows.jsonl", {"question": "2 + 2", "answer": 4, "steps": ["x"]}, {"question": "", "answer": 0.5}
    )
    assert apply_templates(path, {"prompt": "{{Q}}: {question}", "output": " {answer}"}) == [
        {"prompt": "{Q}: 2 + 2", "output": " 4"},
        {"prompt": "{Q}: ", "output": " 0.5"},
    ]


@pytest.mark.parametrize("value", [None, ["x"], {"a": "x"}, True])
def test_what_is_neither_text_nor_a_number_is_no_text(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path / "rows.jsonl", {"question": "q", "answer": "a"}, {"question": "q", "answer": value})
    with pytest.raises(InputError, match=r"rows\.jsonl:2: column 'answer', which the template names, is neither"):
        apply_templates(path, {"prompt": "{question}", "output": "{answer}"})
