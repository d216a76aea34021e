"""A training whose teacher is cached or served holds no weight of it but its head. tests/benchmarks/p16_memory.py measures the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dskd import TeacherCacheOptions, build_teacher_cache
from dskd.teachers.options import ServedOptions, TeacherSource
from dskd.training.options import TrainingOptions
from dskd.training.run import train
from helpers.made_models import MadeModels
from helpers.pooling_server import PoolingServer

STUDENT, TEACHER = 24, 32  # hidden sizes


@pytest.fixture(params=["cached", "served", "live"])
def place(request: pytest.FixtureRequest, world: Path, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Where the teacher is."""
    if request.param == "cached":
        cache = tmp_path / "cache"
        build_teacher_cache(world / "teacher", world / "teacher-data", cache, options=TeacherCacheOptions())
        yield {"cache": cache}
    elif request.param == "served":
        with PoolingServer(world / "teacher") as server:
            yield {"served": ServedOptions(addresses=(server.url,), dtype="float32")}
    else:
        yield {}


# dskd-v1-cma reads the teacher's embedding, too.
@pytest.mark.parametrize("method", ["dskd-v2-eta", "dskd-v1-cma"])
def test_no_layer_of_a_teacher_that_is_elsewhere_is_in_memory(
    world: Path, tmp_path: Path, place: dict[str, Any], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MadeModels(monkeypatch)
    train(
        data=world / "cross-data",
        student=world / "cross",
        teacher_source=TeacherSource(folder=world / "teacher", **place),
        method=method,
        options=TrainingOptions(steps=2, batch_size=4),
        output=tmp_path / "output",
    )
    assert made.in_memory() == ({STUDENT} if place else {STUDENT, TEACHER})
