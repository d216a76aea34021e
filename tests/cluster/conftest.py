"""A real Slurm of two nodes for each test; half a second to start."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import PYTHONPATH
from helpers.slurm_cluster import SlurmCluster, why_not


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """A Slurm that this process and what it starts find; gone with everything in it after the test."""
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # not tmp_path, which is too long for the path of a socket
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with SlurmCluster(folder) as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        yield cluster
    shutil.rmtree(folder)
