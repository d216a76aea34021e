"""Models and data that many tests train on. No test may change what is in these folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from helpers import tiny_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student with its vocabulary and one with another, and a training file."""
    folder = tmp_path_factory.mktemp("world")
    tiny_world.make(folder)
    return folder


@pytest.fixture(scope="session")
def dropping(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models and data, in which the students drop out."""
    folder = tmp_path_factory.mktemp("dropping")
    shutil.copytree(world, folder, dirs_exist_ok=True)
    for name in ("same", "cross"):
        path = folder / name / "config.json"
        config = json.loads(path.read_text())
        drops = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout")
        path.write_text(json.dumps({key: 0.3 if key in drops else value for key, value in config.items()}))
    return folder
