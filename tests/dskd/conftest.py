"""Models and data that many tests train on. No test may change what is in these folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers import tiny_world
from helpers.vllm_servers import VllmServer, running


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


@pytest.fixture(scope="session")
def served_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world, with a teacher that vLLM runs on a CPU."""
    folder = tmp_path_factory.mktemp("served-world")
    tiny_world.make(folder, teacher_heads=1)
    return folder


@pytest.fixture(scope="session")
def replicas(served_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of two real pooling servers of the teacher of `served_world`, in float32. No test may stop them."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    logs = tmp_path_factory.mktemp("servers")
    first, second = (VllmServer(served_world / "teacher", logs / f"{name}.log") for name in ("first", "second"))
    with running(first, second):
        yield first.url, second.url
