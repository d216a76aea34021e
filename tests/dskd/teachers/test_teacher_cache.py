"""What a teacher says, live and cached: the same numbers, found by content, whole or refused, and computed once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.errors import InputError, TrainingFailed
from dskd.modeling.loading import load_model
from dskd.teachers import build_cache as signal_build
from dskd.teachers import cache_store as signal_store
from dskd.teachers.build_cache import build_teacher_cache, estimate_bytes
from dskd.teachers.cache_store import TeacherCacheDamaged
from dskd.teachers.cached import CachedTopK, attach, open_teacher_cache
from dskd.teachers.live import LiveTeacher
from dskd.teachers.options import TeacherCacheOptions
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece

SHARDS = {"shard_rows": 4, "batch_tokens": 64}  # several shards, several batches in each


def _teacher(kind: str, size: int) -> torch.nn.Module:
    """A random model whose head has five padded rows that would win every argmax and most of the probability."""
    torch.manual_seed(0)
    if kind == "gpt2":  # absolute positions
        model = GPT2LMHeadModel(GPT2Config(vocab_size=size + 5, n_embd=16, n_layer=2, n_head=2, n_positions=128))
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=size + 5, initializer_range=0.3, **sizes))
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight[size:] = 20 * weight[:5]
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two teachers, data for them alone, and data of a student with another vocabulary."""
    folder = tmp_path_factory.mktemp("signals")
    rows = [{"prompt": f"{k} {line[:8]}", "output": line[8 : 20 + 3 * k]} for k, line in enumerate(LINES)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = byte_level()
    for kind in ("llama", "gpt2"):
        _teacher(kind, len(tokenizer)).save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
    sentencepiece().save_pretrained(folder / "student")
    prepare_dataset(folder / "train.jsonl", folder / "teacher-data", student=folder / "llama")
    prepare_dataset(
        folder / "train.jsonl", folder / "student-data", student=folder / "student", teacher=folder / "llama"
    )
    return folder


def _build(
    world: Path, output: Path, teacher: str = "llama", options: dict[str, Any] | None = None, **changes: Any
) -> Any:
    return build_teacher_cache(
        world / teacher,
        world / "teacher-data",
        output,
        options=TeacherCacheOptions(**options or {}),
        **{**SHARDS, **changes},
    )


@pytest.fixture(scope="module")
def built(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("built") / "signal"
    return folder, _build(world, folder)


@pytest.fixture
def copied(built: tuple[Path, Any], tmp_path: Path) -> Path:
    shutil.copytree(built[0], tmp_path / "signal")
    return tmp_path / "signal"


def _student_data(world: Path) -> Any:
    return datasets.load_from_disk(str(world / "student-data"))


def _batch(dataset: Any, rows: list[int], **collator: Any) -> dict[str, torch.Tensor]:
    return Collator(**collator)([dataset[k] for k in rows])


def _live(world: Path, teacher: str = "llama", dtype: str = "float32") -> LiveTeacher:
    return LiveTeacher(load_model(world / teacher, dtype), len(byte_level()))


@pytest.mark.parametrize("teacher", ["llama", "gpt2"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_hidden_states_in_the_teachers_dtype_are_those_of_the_live_teacher(
    world: Path, tmp_path: Path, teacher: str, padding_side: str
) -> None:
    _build(world, tmp_path / "signal", teacher)
    data = attach(_student_data(world), tmp_path / "signal")
    batch = _batch(data, [11, 2, 19, 2], padding_side=padding_side)
    live, cached = _live(world, teacher), open_teacher_cache(tmp_path / "signal", "cpu")
    expected, found = live.fetch(batch), cached.fetch(batch)
    torch.testing.assert_close(found.teacher.hidden, expected.teacher.hidden, rtol=1e-5, atol=1e-6)
    logits = live.head.logits(expected.teacher.hidden)
    assert torch.equal(found.teacher.predictions, logits.argmax(-1))
    padded = live.head.logits(expected.teacher.hidden, padded=True)
    assert (padded.argmax(-1) >= cached.head.size).any()  # a padded row would have won
    torch.testing.assert_close(cached.head.logits(found.teacher.hidden), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("teacher", "tied"), [("llama", False), ("gpt2", True)])
def test_the_input_embedding_is_kept_once(world: Path, tmp_path: Path, teacher: str, tied: bool) -> None:
    _build(world, tmp_path / "signal", teacher)
    cached = open_teacher_cache(tmp_path / "signal", "cpu")
    assert torch.equal(cached.embedding, _live(world, teacher).embedding)
    assert (cached.embedding.data_ptr() == cached.head.weight.data_ptr()) == tied
    stored = load_file(tmp_path / "signal" / "head.safetensors")
    assert ("embedding" in stored) != tied


def test_a_signal_from_before_embeddings_were_kept_does_not_know_its_own(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = signal_build._first_files

    def without(*given: Any) -> dict[str, dict[str, torch.Tensor]]:
        files = old(*given)
        return files | {"head.safetensors": {"weight": files["head.safetensors"]["weight"]}}

    monkeypatch.setattr(signal_build, "_first_files", without)
    for teacher in ("llama", "gpt2"):
        _build(world, tmp_path / teacher, teacher)
        assert open_teacher_cache(tmp_path / teacher, "cpu").embedding is None


def test_top_k_knows_neither_head_nor_embedding(world: Path, tmp_path: Path) -> None:
    _build(world, tmp_path / "signal", options={"kind": "top_k", "k": 7})
    assert open_teacher_cache(tmp_path / "signal", "cpu").embedding is None


def test_the_same_batch_gives_the_same_bits(world: Path, tmp_path: Path) -> None:
    """Run in one shard and one batch, as the live teacher is here: nothing is lost on the way to the disk and back."""
    _build(world, tmp_path / "signal", shard_rows=100, batch_tokens=10**6)
    data = attach(_student_data(world), tmp_path / "signal")
    lengths = [len(ids) for ids in data["teacher_ids"]]
    batch = _batch(data, sorted(range(len(data)), key=lambda k: -lengths[k]))
    expected = _live(world).fetch(batch).teacher.hidden
    assert torch.equal(open_teacher_cache(tmp_path / "signal", "cpu").fetch(batch).teacher.hidden, expected)


@pytest.mark.parametrize(
    ("dtype", "stored", "bound"),
    [("float32", "float16", 2**-11), ("float32", "bfloat16", 2**-8), ("bfloat16", "same", 0)],
)
def test_half_precision_is_within_its_rounding(
    world: Path, tmp_path: Path, dtype: str, stored: str, bound: float
) -> None:
    _build(world, tmp_path / "signal", options={"stored_dtype": stored}, dtype=dtype, batch_tokens=1)
    data = attach(_student_data(world), tmp_path / "signal")
    for row in (0, 7):  # one at a time, as with batch_tokens 1, so that rounding is all that differs
        batch = _batch(data, [row])
        expected = _live(world, dtype=dtype).fetch(batch).teacher.hidden
        found = open_teacher_cache(tmp_path / "signal", "cpu").fetch(batch).teacher.hidden
        assert found.dtype == expected.dtype == getattr(torch, dtype)
        assert torch.all((found.float() - expected.float()).abs() <= bound * expected.float().abs() + 1e-7)
    # Predictions are the teacher's own, from before the rounding.
    logits = _live(world, dtype=dtype).head.logits(expected)
    assert torch.equal(
        open_teacher_cache(tmp_path / "signal", "cpu").fetch(batch).teacher.predictions, logits.argmax(-1)
    )


def test_a_value_beyond_float16_is_an_error_that_names_bfloat16(world: Path, tmp_path: Path) -> None:
    model = load_model(world / "llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(1e5)
    shutil.copytree(world / "llama", tmp_path / "llama")
    model.save_pretrained(tmp_path / "llama")
    build = {"options": TeacherCacheOptions(stored_dtype="float16"), **SHARDS}
    with pytest.raises(InputError, match="fix: stored_dtype bfloat16"):
        build_teacher_cache(tmp_path / "llama", world / "teacher-data", tmp_path / "signal", **build)


def test_top_k_and_its_tail_are_the_softmax_over_real_tokens(world: Path, tmp_path: Path) -> None:
    _build(world, tmp_path / "signal", options={"kind": "top_k", "k": 7, "temperature": 2.0})
    data = attach(_student_data(world), tmp_path / "signal")
    batch = _batch(data, [3, 17, 5])
    cached = open_teacher_cache(tmp_path / "signal", "cpu")
    assert isinstance(cached, CachedTopK)
    assert cached.head is None
    assert cached.options.temperature == 2.0
    found = cached.fetch(batch)
    live = _live(world)
    p = (live.head.logits(live.fetch(batch).teacher.hidden).double() / 2.0).softmax(-1)
    ids, kept = found.teacher.top_k_ids, found.teacher.top_k_log_probabilities.double().exp()
    assert ids.shape == kept.shape == (len(batch.teacher.labels), 7)
    torch.testing.assert_close(kept, p.topk(7).values, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(kept, p.gather(-1, ids), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(1 - kept.sum(-1), p.scatter(-1, ids, 0.0).sum(-1), rtol=1e-4, atol=1e-6)


def test_top_k_of_all_tokens_is_everything_and_more_is_an_error(world: Path, tmp_path: Path) -> None:
    size = len(byte_level())
    _build(world, tmp_path / "signal", options={"kind": "top_k", "k": size})
    batch = _batch(attach(_student_data(world), tmp_path / "signal"), [1])
    found = open_teacher_cache(tmp_path / "signal", "cpu").fetch(batch)
    torch.testing.assert_close(
        found.teacher.top_k_log_probabilities.exp().sum(-1), torch.ones(len(batch.teacher.labels))
    )
    with pytest.raises(InputError, match=f"has {size} tokens; fix: a smaller k"):
        _build(world, tmp_path / "other", options={"kind": "top_k", "k": size + 1})
    with pytest.raises(ValidationError, match="leave stored_dtype out"):
        TeacherCacheOptions(kind="top_k", stored_dtype="float16")


def test_rows_are_found_in_any_order_and_some_may_be_left_out(world: Path, built: tuple[Path, Any]) -> None:
    data = _student_data(world)
    fewer = data.select([18, 3, 9])
    attached = attach(fewer, built[0])
    whole = attach(data, built[0])
    assert attached["teacher_row"] == [whole["teacher_row"][k] for k in (18, 3, 9)]
    cached = open_teacher_cache(built[0], "cpu")
    left, right = _batch(attached, [2, 0]), _batch(whole, [9, 18])
    assert torch.equal(cached.fetch(left).teacher.hidden, cached.fetch(right).teacher.hidden)
    assert attach(attached, built[0])["teacher_row"] == attached["teacher_row"]  # again changes nothing


def test_equal_rows_are_run_once(world: Path, tmp_path: Path) -> None:
    lines = (world / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "twice.jsonl").write_text("".join(lines[:3] * 2))
    prepare_dataset(tmp_path / "twice.jsonl", tmp_path / "data", student=world / "llama")
    report = build_teacher_cache(world / "llama", tmp_path / "data", tmp_path / "signal", options=TeacherCacheOptions())
    assert (report.rows, report.built_rows) == (3, 3)


def test_a_row_that_the_signal_does_not_have_is_an_error(world: Path, built: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text('{"prompt": "A new prompt", "output": "a new answer"}\n')
    prepare_dataset(tmp_path / "more.jsonl", tmp_path / "data", student=world / "student", teacher=world / "llama")
    with pytest.raises(InputError, match="1 of 1 rows are not in the cache"):
        attach(datasets.load_from_disk(str(tmp_path / "data")), built[0])


def test_the_live_teacher_counts_examples_padded_or_packed(world: Path) -> None:
    data = _student_data(world)
    for packing in (False, True):
        live = _live(world)
        for rows in ([0, 1, 2], [7], [19, 18]):
            live.fetch(_batch(data, rows, packing=packing))
        assert live.examples == 6
        assert live.seconds > 0


def test_a_whole_signal_is_found_without_loading_the_teacher(
    world: Path, built: tuple[Path, Any], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert built[1].built_rows == built[1].rows == 20
    monkeypatch.setattr("dskd.teachers.cache_engine.load_model", lambda *_: pytest.fail("the teacher was loaded"))
    again = _build(world, copied, shard_rows=3)  # the ranges of the folder hold
    assert (again.built_rows, again.reused_rows, again.bytes) == (0, 20, built[1].bytes)
    assert open_teacher_cache(copied, "cpu").examples == 0


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("00002.safetensors", _flip),
        ("00002.safetensors", _cut),
        ("00002.safetensors", lambda file: file.unlink()),
        ("00002.json", lambda file: file.unlink()),
        ("00002.json", _cut),
    ],
)
def test_a_damaged_shard_is_named_and_computed_again_alone(
    world: Path, built: tuple[Path, Any], copied: Path, name: str, damage: Callable
) -> None:
    damage(copied / "shards" / name)
    with pytest.raises(TeacherCacheDamaged, match=r"00002\.safetensors: is missing or damaged \(1 of 5 shards\)"):
        open_teacher_cache(copied, "cpu")
    times = {file: file.stat().st_mtime_ns for file in copied.rglob("*.safetensors") if "00002" not in file.name}
    report = _build(world, copied)
    assert (report.built_rows, report.reused_rows) == (4, 16)
    assert all(file.stat().st_mtime_ns == then for file, then in times.items())
    assert (copied / "shards" / "00002.safetensors").read_bytes() == (
        built[0] / "shards" / "00002.safetensors"
    ).read_bytes()
    open_teacher_cache(copied, "cpu")


@pytest.mark.parametrize("name", ["head.safetensors", "rows.safetensors"])
def test_a_damaged_head_or_index_is_written_again_and_no_row_is_run(
    world: Path, built: tuple[Path, Any], copied: Path, name: str
) -> None:
    _flip(copied / name)
    with pytest.raises(TeacherCacheDamaged, match=name):
        open_teacher_cache(copied, "cpu")
    assert _build(world, copied).built_rows == 0
    assert (copied / name).read_bytes() == (built[0] / name).read_bytes()


def test_a_changed_description_is_refused(world: Path, copied: Path) -> None:
    file = copied / "signal.json"
    file.write_text(file.read_text().replace('"softcap": 0.0', '"softcap": 9.0'))
    for use in (lambda: open_teacher_cache(copied, "cpu"), lambda: _build(world, copied)):
        with pytest.raises(TeacherCacheDamaged, match="was changed; fix: remove"):
            use()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"teacher": "gpt2"}, "teacher"),
        ({"options": {"stored_dtype": "float16"}}, "options"),
        ({"dtype": "bfloat16"}, "dtype"),
    ],
)
def test_a_folder_with_another_signal_is_refused(
    world: Path, built: tuple[Path, Any], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=f"holds a teacher cache with another {named}"):
        _build(world, built[0], **changes)


def test_other_folders_and_other_data_are_refused(world: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt, not a teacher cache"):
        _build(world, tmp_path)
    with pytest.raises(InputError, match="holds no teacher cache"):
        open_teacher_cache(tmp_path, "cpu")
    with pytest.raises(InputError, match="prepared for another tokenizer"):
        build_teacher_cache(world / "llama", world / "student-data", tmp_path / "signal", options=TeacherCacheOptions())


BUILD = """
    import sys, time
    from pathlib import Path
    from dskd import TeacherCacheOptions, build_teacher_cache

    world, output = map(Path, sys.argv[1:])
    build_teacher_cache(
        world / "llama", world / "teacher-data", output, options=TeacherCacheOptions(), shard_rows=4, batch_tokens=64,
        progress=lambda news: time.sleep(0.05),
    )
"""


def test_a_killed_build_goes_on_and_loses_at_most_the_shard_in_flight(
    world: Path, built: tuple[Path, Any], tmp_path: Path
) -> None:
    output = tmp_path / "signal"
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(BUILD), str(world), str(output)])
    try:
        until = time.monotonic() + 60
        while not (output / "shards" / "00001.json").is_file():
            assert process.poll() is None, "the build ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    whole = len([*(output / "shards").glob("*.json")])
    assert 2 <= whole < 5
    # What a kill between two writes may leave.
    (output / "shards" / "00004.safetensors.unfinished").write_bytes(b"half")
    with pytest.raises(TeacherCacheDamaged, match="is missing or damaged"):
        open_teacher_cache(output, "cpu")
    report = _build(world, output)
    assert (report.reused_rows, report.built_rows) == (4 * whole, 20 - 4 * whole)
    written = {file.relative_to(output): file.read_bytes() for file in output.rglob("*") if file.is_file()}
    expected = {file.relative_to(built[0]): file.read_bytes() for file in built[0].rglob("*") if file.is_file()}
    assert written == expected


@pytest.mark.parametrize("options", [{}, {"stored_dtype": "float16"}, {"kind": "top_k", "k": 9}])
def test_the_size_is_known_before_and_told_first(world: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    news = []
    report = _build(world, tmp_path / "signal", options=options, progress=news.append)
    estimate = news[0]["estimate_bytes"]
    assert abs(report.bytes - estimate) < 400 * 7 + 2048  # headers and marks of the files
    assert news[1] == {"engine": "transformers"}
    assert news[-1].keys() == {"written"}
    steps = [one for one in news if "step" in one]
    assert steps[-1] == {"step": 20, "steps": 20}
    assert [one["step"] for one in steps] == sorted(one["step"] for one in steps)
    fewer_shards = estimate_bytes(
        world / "llama", world / "teacher-data", TeacherCacheOptions(**options), dtype="float32"
    )
    assert 0 <= estimate - fewer_shards <= 4 * 512


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_build.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(TrainingFailed, match=r"needs 0\.00 GB and the disk has 0\.00 GB left; fix: free space"):
        _build(world, tmp_path / "signal")
    assert not (tmp_path / "signal").exists()


def test_a_disk_that_fills_up_keeps_what_is_whole(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if (
            len(calls) == 13
        ):  # three first files and one shard with its mark, two calls each; then the second shard's bytes
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(signal_store.os, "fsync", full)
    with pytest.raises(TrainingFailed, match="the disk is full; fix: free space"):
        _build(world, tmp_path / "signal")
    monkeypatch.undo()
    assert _build(world, tmp_path / "signal").reused_rows == 4


@pytest.mark.gpu
def test_cached_rows_arrive_on_the_gpu(world: Path, built: Any) -> None:
    batch = _batch(attach(_student_data(world), built[0]), [4, 8])
    cached = open_teacher_cache(built[0], "cuda")
    expected = open_teacher_cache(built[0], "cpu").fetch(batch)
    found = cached.fetch(batch.to("cuda"))
    assert found.teacher.hidden.is_cuda
    assert torch.equal(found.teacher.hidden.cpu(), expected.teacher.hidden)
