"""`harness list methods`: what each method is, and what of its paper is not here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.methods import METHODS
from harness.cli import main


def listed() -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in json.loads(CliRunner().invoke(main, ["list", "methods", "--json"]).stdout)}


def test_every_method_says_its_paper_what_vocabularies_it_takes_and_on_which_text_it_learns() -> None:
    rows = listed()
    assert list(rows) == list(METHODS)
    assert (rows["kd"]["paper"], rows["kd"]["vocabulary"], rows["kd"]["on_policy"]) == (
        "arXiv 1503.02531",
        "same",
        "optional",
    )
    assert rows["dskd-v2-eta"]["vocabulary"] == "any"
    for row in rows.values():
        assert row["paper"]
        assert row["vocabulary"] in {"same", "any"}
        assert row["on_policy"] in {"never", "always", "optional"}


def test_a_method_says_what_of_its_paper_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed()["sft"]["status"] == "as in the paper"
    monkeypatch.setattr(METHODS["sft"], "not_reproduced", "The second stage is not here.")
    assert listed()["sft"]["status"] == "The second stage is not here."


def test_the_table_has_a_line_for_each_method_and_folds_none() -> None:
    header, *lines = CliRunner().invoke(main, ["list", "methods"]).stdout.splitlines()
    assert header.split() == [
        "method", "title", "paper", "vocabulary", "on_policy", "needs_teacher", "signals", "status", "options",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == list(METHODS)


def test_every_defect_of_published_code_says_what_it_is_and_whose() -> None:
    from dskd.upstream.defects import CODE_BASES, DEFECTS

    result = CliRunner().invoke(main, ["list", "defects", "--json"])
    rows = {row["defect"]: row for row in json.loads(result.stdout)}
    assert set(rows) == set(DEFECTS)
    assert rows["stale_head"]["code bases"] == ["kdflow"]
    for code, defects in CODE_BASES.items():
        assert {name for name, row in rows.items() if code in row["code bases"]} == set(defects)
    assert all(row["what"] for row in rows.values())
