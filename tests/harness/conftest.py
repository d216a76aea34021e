"""A matrix that is as small as one can be, and the command line as a process."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser

from helpers.browsers import chromium
from helpers.tiny_matrix import NEW_MODEL, training

_TINY = {
    "schema_version": 1,
    "name": "tiny",
    "data": {"student": {"small_world": "student", "limit": 24}},
    "models": {
        "teacher": {**NEW_MODEL, "training": [training(2)]},
        "same": NEW_MODEL,
        "cross": {**NEW_MODEL, "tokenizer": {"small_world": "sentencepiece"}},
    },
    "pairs": [
        {"teacher": "teacher", "student": "same", "methods": ["sft", "kd"]},
        {"teacher": "teacher", "student": "cross", "methods": ["sft", "dskd-v2-eta"]},
    ],
    "training": training(2),
    "seeds": [1],
    "tasks": {"small_math": {"limit": 2, "max_new_tokens": 4}},
    "evaluation": {"engine": "transformers"},
}


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The content of a tiny matrix, to be changed at will."""
    return copy.deepcopy(_TINY)


@pytest.fixture(scope="module")
def tiny_pair() -> dict[str, Any]:
    """The same with one pair of two vocabularies, one method and two tasks, for a module that runs it once."""
    content = copy.deepcopy(_TINY)
    content["pairs"] = [{"teacher": "teacher", "student": "cross", "methods": ["dskd-v2-eta"]}]
    content["tasks"]["small_instruct"] = {"limit": 2, "max_new_tokens": 4}
    return content


@pytest.fixture
def write_matrix(tmp_path: Path) -> Callable[[Any], Path]:
    """Write a matrix's content to a file in the test's folder."""

    def write(content: Any) -> Path:
        path = tmp_path / "matrix.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def harness() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own: arguments as on the command line, `cwd` where it is started."""
    return _harness


def _harness(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        env={**os.environ, "NO_COLOR": "1"},
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for a module: while Playwright runs, its process can have no other event loop, which tests of other modules need."""
    with chromium() as started:
        yield started
