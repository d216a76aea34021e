"""The record schema: what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.runs.records import read_record


def content() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "cell": {
            "teacher": "t",
            "student": "s",
            "method": "kd",
            "seed": 1,
            "task": "small_math",
            "task_version": "1",
        },
        "identity": {"hash": "0", "hash_version": 1, "parts": {}},
        "status": "done",
        "n": {"total": 2, "scored": 2, "invalid": 0, "truncated": 0, "harness_error": 0},
        "headline": "numeric",
        "metrics": {"numeric": {"value": 50.0, "stderr": None, "ci95": [0.0, 100.0], "ci_method": "wilson"}},
        "cost": {"train_seconds": None},
        "environment": {"versions": {}, "python": "3", "platform": "x", "device": "cpu", "threads": 1},
        "error": None,
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = read_record(write(tmp_path / "result.json", content()))
    assert record.metrics["numeric"].ci95 == (0.0, 100.0)
    assert read_record(write(tmp_path / "again.json", record.model_dump_json())) == record


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("metrics", {"numeric": {"value": float("nan")}}, "metrics.numeric.value: Input should be a finite number"),
        ("metrics", {"numeric": {"value": None}}, "a metric without value needs a reason"),
        ("metrics", {}, "the headline metric 'numeric' is not among the metrics"),
        ("n", None, "an evaluation needs n"),
        ("status", "failed", "a failed record needs its error"),
        ("schema_version", 2, "schema_version: Input should be 1"),
        ("surprise", 1, "surprise: Extra inputs are not permitted"),
    ],
)
def test_what_breaks_the_schema_is_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = write(tmp_path / "result.json", {**content(), key: value})
    with pytest.raises(ValueError, match=r"result\.json") as caught:
        read_record(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_file_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Invalid JSON"):
        read_record(write(tmp_path / "result.json", json.dumps(content())[:50]))
