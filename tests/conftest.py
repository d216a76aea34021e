"""What several tests share: folders of real data, and how to skip without them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import SHARED

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write golden files anew, where a test can")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need a GPU are skipped where there is none, however they are chosen."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture
def write_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written anew."""
    return request.config.getoption("--write-golden")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets and tokenizers: $HARNESS_DATA, else shared/data beside the repository."""
    folder = Path(os.environ.get("HARNESS_DATA") or SHARED / "data")
    if not folder.is_dir():
        pytest.skip("no real data here: set HARNESS_DATA to its folder")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a user's runs remember is read or written by a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _the_environment_is_restored() -> Iterator[None]:
    """The command line puts some of its options where jobs find them; the next test is to find nothing there."""
    names = ("HARNESS_DATA", "HARNESS_SANDBOX", "HARNESS_HUB", "DSKD_HUB_COMMITS")
    before = {name: os.environ.get(name) for name in names}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
