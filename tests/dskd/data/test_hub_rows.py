"""Data sets on an imitated hub, by the real clients: configurations, splits, commits, and what cannot be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from dskd.data.hub_rows import HubData, parse_hub_data
from dskd.errors import InputError
from dskd.hub import HubName
from helpers.hub_server import HubServer
from helpers.paths import ROOT

CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/train-*}
---
"""
# Prints a line for each source: its first and last prompt and how many rows it has, or the error.
READ = """
import sys
from dskd.data.sources import rows_named
from dskd.errors import InputError
for source in sys.argv[1:]:
    try:
        rows = [row for _, row in rows_named(source)]
        print(rows[0]["question"], rows[-1]["question"], len(rows))
    except InputError as error:
        print("error:", error)
"""


def rows(name: str, count: int) -> list[dict[str, Any]]:
    """Rows whose calls of tools have different arguments, of which a table makes one type unless it keeps them as JSON."""
    return [{"question": f"{name} {k}", "calls": [{"arguments": {f"k{k}": k}}]} for k in range(count)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    files = folder / "grade"
    for configuration, split, count in (("main", "train", 700), ("main", "test", 2), ("socratic", "train", 3)):
        (files / configuration).mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([{"question": row["question"]} for row in rows(f"{configuration}-{split}", count)])
        parquet.write_table(table, files / configuration / f"{split}-00000-of-00001.parquet")
    (files / "README.md").write_text(CARD)
    plain = folder / "plain"
    plain.mkdir()
    (plain / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows("old", 3)))
    (plain / "README.md").write_text("A card.")
    with HubServer(folder) as server:
        server.add_dataset("org/grade", files)
        server.commits = {"old": server.add_dataset("org/plain", plain)}  # type: ignore[attr-defined]
        (plain / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows("new", 2)))
        server.commits["new"] = server.add_dataset("org/plain", plain)  # type: ignore[attr-defined]
        server.add_dataset("org/gated", plain, gated=True)
        yield server


def read(hub: HubServer, *sources: str, **settings: str) -> list[str]:
    environment = {**os.environ, **hub.env, "PYTHONPATH": str(ROOT), **settings}
    done = subprocess.run(
        [sys.executable, "-c", READ, *sources], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_split_of_a_configuration_is_read_at_a_revision(hub: HubServer) -> None:
    old, new = hub.commits["old"], hub.commits["new"]  # type: ignore[attr-defined]
    assert read(hub, "org/grade:main:train", "org/grade:main:test", "org/grade:socratic:train") == [
        "main-train 0 main-train 699 700",
        "main-test 0 main-test 1 2",
        "socratic-train 0 socratic-train 2 3",
    ]
    assert read(hub, "org/plain", f"org/plain@{old}", f"org/plain@{new}:train") == [
        "new 0 new 1 2", "old 0 old 2 3", "new 0 new 1 2",
    ]  # fmt: skip


def test_without_a_network_the_cache_is_read_and_another_commit_of_it_is_not_taken_for_the_one_asked_for(
    hub: HubServer, tmp_path: Path
) -> None:
    old, new = hub.commits["old"], hub.commits["new"]  # type: ignore[attr-defined]
    cache = {
        "HF_HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_DATASETS_CACHE": str(tmp_path / "sets"),
    }
    assert read(hub, f"org/plain@{new}", **cache) == ["new 0 new 1 2"]
    found = read(hub, f"org/plain@{new}", f"org/plain@{old}", "org/grade:main:test", **cache, HF_HUB_OFFLINE="1")
    assert found[0] == "new 0 new 1 2"
    assert found[1].startswith(f"error: org/plain@{old}:train: the cache holds another commit of it ({new})")
    assert "HF_HUB_OFFLINE is set; fix: unset it" in found[2]


def test_what_cannot_be_had_is_one_line(hub: HubServer) -> None:
    messages = {
        "org/grade": "Config name is missing. Please pick one among the available configs: ['main', 'socratic']; fix:",
        "org/grade:other:train": "BuilderConfig 'other' not found. Available: ['main', 'socratic']; fix:",
        "org/grade:main:dev": "Unknown split \"dev\". Should be one of ['train', 'test']; fix:",
        "org/absent": "no data set of this name on",
        "org/plain@v9": "this data set has no such revision; fix:",
        "org/gated": "this data set is gated: its owner lets only those read it who asked for it; fix: ask on",
        "org/plain:a:b:c": "is no data set; fix: write org/name:split, or org/name:configuration:split",
    }
    found = read(hub, *messages)
    assert len(found) == len(messages)
    for line, (source, message) in zip(found, messages.items(), strict=True):
        assert line.startswith(f"error: {source.partition(':')[0]}"), line
        assert message in line


def test_objects_of_different_keys_stay_what_they_are(hub: HubServer) -> None:
    code = "from dskd.data.sources import rows_named; print([row['calls'] for _, row in rows_named('org/plain')])"
    environment = {**os.environ, **hub.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([row["calls"] for row in rows("new", 2)]), done.stderr


def test_a_name_on_the_hub_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_hub_data("org/name") == HubData(HubName("org/name"), None, "train")
    assert parse_hub_data("org/name@v1:test") == HubData(HubName("org/name", "v1"), None, "test")
    assert parse_hub_data("org/name:main:train[:10]") is not None
    for path in ("train.jsonl", "data/train.jsonl", "data/train.csv.gz", "a/b/c", "/org/name", "-", "./org/name"):
        assert parse_hub_data(path) is None
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert parse_hub_data("org/name") is None
    assert str(parse_hub_data("org/other:main:test")) == "org/other@main:main:test"
    for wrong in ("org/other:", "org/other::train", "org/other:a:b:c"):
        with pytest.raises(InputError, match="is no data set"):
            parse_hub_data(wrong)
