"""Teachers that several tests of trainings learn from."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import several_teachers


@pytest.fixture(scope="session")
def pair(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a second teacher with a vocabulary of its own, and of the data of both (helpers.several_teachers)."""
    folder = tmp_path_factory.mktemp("pair")
    several_teachers.make(world, folder)
    return folder
