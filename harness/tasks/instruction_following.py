"""What the tasks of free answers share: rows in the format of MiniLLM and DSKD, with `prompt`, `instruction`, `input`, `output`.

A row's `prompt` holds Alpaca's template; its `output` is the reference, or a list of references. A task's scoring.py takes these
functions as its own.
"""

from __future__ import annotations

from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.tasks.data_files import DataFile


def documents_of(data: DataFile) -> list[dict[str, Any]]:
    """Return the rows, numbered from 0. Rows without an input have an empty one."""
    return [
        {
            "id": str(number),
            "prompt": row["prompt"],
            "instruction": row["instruction"],
            "input": row.get("input", ""),
            "output": row["output"],
        }
        for number, row in enumerate(data.rows())
    ]


def prompt(doc: dict[str, Any]) -> str:
    """Return the row's own prompt, which holds Alpaca's template."""
    return doc["prompt"]


def instruction(doc: dict[str, Any]) -> Instruction:
    """Return the row's instruction and input; Alpaca's template makes the row's own prompt of them."""
    return Instruction(doc["instruction"], doc["input"])


def gold(doc: dict[str, Any]) -> str:
    """Return the reference, the first where there are several."""
    return doc["output"] if isinstance(doc["output"], str) else doc["output"][0]
