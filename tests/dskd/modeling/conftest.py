"""A Llama's folder, for tests of what is in a model's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.llama_folders import write_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of small random weights."""
    return write_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may damage."""
    return Path(shutil.copytree(llama, tmp_path / "model"))
