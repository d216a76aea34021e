"""Runs a teacher once over its data and keeps what it says in a folder; goes on where it was killed, repairs what is damaged."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from dskd.errors import InputError, TrainingFailed
from dskd.modeling.lm_head import Head
from dskd.teachers.cache_source import CacheSource
from dskd.teachers.cache_store import HEAD, ROWS, CacheStore
from dskd.teachers.options import TeacherCacheOptions

Progress = Callable[[dict[str, Any]], None]
SHARD_BYTES, SHARD_ROWS = 256 * 2**20, 4096
BATCH_TOKENS = 8192
TIED = "embedding_is_weight"  # a tensor of head.safetensors that says so


class TeacherCacheReport(BaseModel):
    """Distinct rows, labelled tokens and bytes of a signal, and what this call did: rows that the teacher ran, and found whole."""

    rows: int
    tokens: int
    bytes: int
    seconds: float
    built_rows: int
    reused_rows: int


def estimate_bytes(teacher: Path, data: Path, options: TeacherCacheOptions, *, dtype: str) -> int:
    """The size that a cache will have on the disk, known without the teacher's weights."""
    source = CacheSource(teacher, data, options, dtype)
    return _estimate(source, source.shard_ranges(SHARD_BYTES, SHARD_ROWS))


def build_teacher_cache(
    teacher: Path,
    data: Path,
    output: Path,
    *,
    options: TeacherCacheOptions,
    dtype: str = "float32",
    device: Any = "cpu",
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    shard_rows: int = SHARD_ROWS,
    batch_tokens: int = BATCH_TOKENS,
) -> TeacherCacheReport:
    """Run the teacher once on every distinct example and store its outputs; compute only what is missing or damaged.

    Args:
        teacher: A model folder; `dtype` is that of its weights.
        data: A folder of `prepare_dataset(student=teacher)`, so that all students of this teacher share the cache.
        output: The folder of the cache.
        options: What to store.
        progress: Called with {"estimate_bytes"} first, then with {"step", "steps"} in examples.
        shard_bytes, shard_rows: The largest shard.
        batch_tokens: The largest batch, padding included.

    Raises:
        InputError: For unusable input, another cache in the folder, and a value that float16 cannot hold.
        TrainingFailed: Where memory or the disk does not suffice.
    """
    start = time.perf_counter()
    tell = progress or (lambda _: None)
    source = CacheSource(teacher, data, options, dtype)
    request = source.request()
    store = CacheStore(output)
    begun = store.exists()
    if begun:
        if changed := [key for key in request if store.request.get(key) != request[key]]:
            raise InputError(
                f"{output}: holds a signal with another {', '.join(changed)}; fix: give another folder, or remove it"
            )
        store.clean()
    ranges = store.ranges if begun else source.shard_ranges(shard_bytes, shard_rows)
    files = store.damaged_files() if begun else [ROWS]
    missing = store.damaged_shards() if begun else list(range(len(ranges)))
    tell({"estimate_bytes": _estimate(source, ranges)})
    if files or missing:
        _require_space(output, _estimate(source, ranges, missing, bool(files)))
        try:
            _write(source, store, missing, ranges if files else None, device, batch_tokens, tell)
        except torch.OutOfMemoryError as error:
            hint = f"batch_tokens below {batch_tokens}, or dtype bfloat16; what is written stays"
            raise TrainingFailed(f"{teacher}: out of memory; hint: {hint}") from error
    built = sum(ranges[number][1] - ranges[number][0] for number in missing)
    rows = len(source.index.digests)
    return TeacherCacheReport(
        rows=rows,
        tokens=int(source.index.offsets[-1]),
        bytes=store.bytes,
        seconds=time.perf_counter() - start,
        built_rows=built,
        reused_rows=rows - built,
    )


def _write(
    source: CacheSource,
    store: CacheStore,
    missing: list[int],
    new_ranges: list[tuple[int, int]] | None,
    device: Any,
    batch_tokens: int,
    tell: Progress,
) -> None:
    """Run the teacher on the missing shards; with `new_ranges`, write what stands beside the shards first."""
    model, head = source.load(device)
    if new_ranges is not None:
        embedding = model.get_input_embeddings().weight.detach()
        store.begin(source.request(), _first_files(source, head, embedding), new_ranges)
    rows = len(source.index.digests)
    done = rows - sum(store.ranges[number][1] - store.ranges[number][0] for number in missing)

    def add(count: int) -> None:
        nonlocal done
        done += count
        tell({"step": done, "steps": rows})

    for number in missing:
        store.write_shard(number, source.run(model, head, *store.ranges[number], batch_tokens, add))


def _first_files(source: CacheSource, head: Head, embedding: Tensor) -> dict[str, dict[str, Tensor]]:
    """The index of rows and, with hidden states, the head and the input embedding where that is not the head's weight."""
    files = {ROWS: source.index.tensors()}
    if source.options.kind == "hidden_states":
        bias = {} if head.bias is None else {"bias": head.bias.cpu()}
        tied = embedding.data_ptr() == head.weight.data_ptr() and embedding.shape == head.weight.shape
        # A signal from before embeddings were kept has neither, so that its embedding is unknown and not taken for the head.
        beside = {TIED: torch.ones(1, dtype=torch.uint8)} if tied else {"embedding": embedding.cpu()}
        files[HEAD] = {"weight": head.weight.cpu(), **bias, **beside}
    return files


def _estimate(
    source: CacheSource, ranges: list[tuple[int, int]], missing: list[int] | None = None, with_files: bool = True
) -> int:
    """Bytes of these shards (by default of all), and of what stands beside them."""
    chosen = range(len(ranges)) if missing is None else missing
    offsets = source.index.offsets
    tokens = sum(int(offsets[ranges[number][1]] - offsets[ranges[number][0]]) for number in chosen)
    beside = source.head_bytes + 40 * len(offsets) + 2048 if with_files else 0  # a digest and an offset a row
    return tokens * source.bytes_per_token + 512 * len(chosen) + beside  # a header and a mark a shard


def _require_space(output: Path, needed: int) -> None:
    there = output.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise TrainingFailed(
            f"{output}: the signal needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB left; "
            "hint: free space, give another folder, or keep less (stored_dtype float16 or bfloat16, top_k)"
        )
