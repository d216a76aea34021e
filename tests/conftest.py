"""What several tests share: folders of real data, and how to skip without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets and tokenizers: $HARNESS_DATA, else shared/data beside the repository."""
    folder = Path(os.environ.get("HARNESS_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data here: set HARNESS_DATA to its folder")
    return folder
