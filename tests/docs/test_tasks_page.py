"""The table of docs/tasks.md says of every task what its class says: version, decoding, metrics, intervals, licence, validation."""

from __future__ import annotations

import re

import pytest

from harness import tasks
from helpers.paths import ROOT

COLUMNS = ("task", "version", "prompt", "items", "decoding", "metrics", "interval", "licence", "validation")
PAGE = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")


def table() -> dict[str, dict[str, str]]:
    """The rows of the page's first table, by their task."""
    lines = [line.strip() for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == COLUMNS
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:] if len(row) == len(COLUMNS)]
    return {re.sub(r"\W+$", "", row["task"]).strip("`"): row for row in rows}


def interval(task: tasks.Task) -> str:
    """How the headline's interval is made."""
    if task.metrics[0].kind == "continuous":
        return "bootstrap"
    return "Wilson, over problems" if task.over_samples else "Wilson"


def metrics(task: tasks.Task) -> str:
    """The names, the headline first."""
    over = [f"`{name}@k`" for name in task.over_samples]
    return ", ".join([*(f"`{metric.name}`" for metric in task.metrics), *over])


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_s_row_says_what_its_class_says(name: str) -> None:
    task, row = tasks.load(name), table()[name]
    assert row["version"] == task.version
    assert f"{task.max_new_tokens:,} tokens" in row["decoding"]
    assert row["metrics"] == metrics(task)
    assert row["interval"] == interval(task)
    assert row["licence"] == task.licence
    stands_in = f"those of `{task.validation_from}`" if task.validation_from else "–"
    assert row["validation"] == (task.validation or stands_in)
    assert row["prompt"]
    assert row["items"]


def test_the_table_has_every_task_and_no_other() -> None:
    assert sorted(table()) == tasks.names()
