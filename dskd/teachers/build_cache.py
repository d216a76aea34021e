"""Runs a teacher once over its data and keeps what it says in a folder; goes on where it was killed, repairs what is damaged."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from dskd.errors import InputError, OutOfMemory, TrainingFailed
from dskd.modeling.lm_head import Head
from dskd.teachers.cache_engine import EngineName, OpenedEngine, choose_engine, open_engine, read_outer_layers
from dskd.teachers.cache_shards import answered_shards, checked
from dskd.teachers.cache_source import CacheSource
from dskd.teachers.cache_store import HEAD, ROWS, CacheStore
from dskd.teachers.engine_comparison import EngineComparison, Reference, reference_answers, require_equal
from dskd.teachers.engines.vllm import VllmCannotRun
from dskd.teachers.options import ServedOptions, TeacherCacheOptions
from dskd.teachers.probe.report import ProbeReport

Progress = Callable[[dict[str, Any]], None]
SHARD_BYTES, SHARD_ROWS = 256 * 2**20, 4096
BATCH_TOKENS = 8192
TIED = "embedding_is_weight"  # a tensor of head.safetensors that says so


class TeacherCacheReport(BaseModel):
    """What a teacher cache holds, and what this call did for it.

    Attributes:
        rows: That are distinct.
        tokens: That are labelled.
        bytes, seconds: Of the folder, of this call.
        built_rows, reused_rows: That the teacher ran, and that were found whole.
        engine: What the cache was begun with: `transformers`, `vllm` or `served`.
        comparison: With transformers; None where it is the engine, and for caches from before there were others.
        probe: Of a served teacher, what this call found out about its servers; None where it asked none.
    """

    rows: int
    tokens: int
    bytes: int
    seconds: float
    built_rows: int
    reused_rows: int
    engine: str = "transformers"
    comparison: EngineComparison | None = None
    probe: ProbeReport | None = None


def estimate_bytes(
    teacher: Path,
    data: Path,
    options: TeacherCacheOptions,
    *,
    dtype: str,
    served: ServedOptions | None = None,
    tokenizer: Path | None = None,
) -> int:
    """The size that a cache will have on the disk, known without the teacher's weights."""
    source = CacheSource(teacher, data, options, dtype, served, tokenizer)
    return _estimate(source, source.shard_ranges(SHARD_BYTES, SHARD_ROWS))


def build_teacher_cache(
    teacher: Path,
    data: Path,
    output: Path,
    *,
    options: TeacherCacheOptions,
    dtype: str = "float32",
    device: Any = "cpu",
    engine: EngineName = "auto",
    tensor_parallel: int = 1,
    served: ServedOptions | None = None,
    tokenizer: Path | None = None,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
    shard_rows: int = SHARD_ROWS,
    batch_tokens: int = BATCH_TOKENS,
) -> TeacherCacheReport:
    """Run the teacher once on every distinct example and store its outputs; resume where that was interrupted.

    A folder with a part of this cache is checked byte by byte; only what is missing or damaged is computed, by the engine that the
    folder was begun with. Another engine than transformers is compared with it on a few rows before anything is written.

    Args:
        teacher: A model folder. With `served`, its configuration and the shards with its head and embedding suffice; where that gives
            log-probabilities, the tokenizer.
        data: A folder of `prepare_dataset(student=teacher)`, so that all students of this teacher share the cache.
        output: The folder of the cache.
        options: What to store.
        dtype, device: Of the teacher, or of a served one's head. dtype "auto" is what its configuration says.
        engine: What runs the teacher. auto: vLLM on a GPU where it runs the model, else transformers.
        tensor_parallel: Number of GPUs on which vLLM spreads each layer.
        served: A server that runs the teacher in the place of `engine`.
        tokenizer: The folder of the teacher's tokenizer, by default `teacher`.
        progress: Called with {"estimate_bytes"} first, with {"engine"} and perhaps {"instead_of", "reason"} before the teacher is
            loaded, with {"comparison"} after the comparison, then with {"step", "steps"} in examples and with
            {"written"} after each shard that is on the disk, where it may raise.
        shard_bytes, shard_rows, batch_tokens: The largest shard, and batch with padding.

    Raises:
        InputError: For unusable input, another cache or engine in the folder, an engine that gives something else than transformers,
            and a value that float16 cannot hold.
        TrainingFailed: Where memory or the disk does not suffice, or the engine fails.
    """
    start = time.perf_counter()
    source = CacheSource(teacher, data, options, dtype, served, tokenizer)
    request = source.request()
    store = CacheStore(output)
    begun = store.exists()
    if begun:
        _require_same(store, request)
        store.clean()
    name = choose_engine(engine, served is not None, store.engine if begun else None, output, device)
    ranges = store.ranges if begun else source.shard_ranges(shard_bytes, shard_rows)
    files = store.damaged_files() if begun else [ROWS]
    missing = store.damaged_shards() if begun else list(range(len(ranges)))
    tell = progress or (lambda _: None)
    tell({"estimate_bytes": _estimate(source, ranges)})
    probe = None
    if files or missing:
        _require_space(output, _estimate(source, ranges, missing, bool(files)))
        settings = _Settings(device, batch_tokens, tensor_parallel, tell, may_change=not begun and engine == "auto")
        try:
            probe = _write(source, store, name, missing, ranges if files else None, settings)
        except torch.OutOfMemoryError as error:
            fix = f"batch_tokens below {batch_tokens}, or dtype bfloat16; what is written stays"
            raise OutOfMemory(f"{teacher}: out of memory; fix: {fix}") from error
    built = sum(ranges[number][1] - ranges[number][0] for number in missing)
    return TeacherCacheReport(
        rows=len(source.index.digests),
        tokens=int(source.index.offsets[-1]),
        bytes=store.bytes,
        seconds=time.perf_counter() - start,
        built_rows=built,
        reused_rows=len(source.index.digests) - built,
        engine=store.engine,
        comparison=None if store.comparison is None else EngineComparison(**store.comparison),
        probe=probe,
    )


def _require_same(store: CacheStore, request: dict[str, Any]) -> None:
    keys = dict.fromkeys([*request, *store.request])
    if changed := [key for key in keys if store.request.get(key) != request.get(key)]:
        raise InputError(
            f"{store.folder}: holds a teacher cache with another {', '.join(changed)}; fix: give another folder, or remove it"
        )


@dataclass(frozen=True)
class _Settings:
    """How the teacher is run. may_change: whether transformers may take the place of vLLM where that does not run the teacher."""

    device: Any
    batch_tokens: int
    tensor_parallel: int
    tell: Progress
    may_change: bool


def _write(
    source: CacheSource,
    store: CacheStore,
    name: str,
    missing: list[int],
    new_ranges: list[tuple[int, int]] | None,
    settings: _Settings,
) -> ProbeReport | None:
    """Run the teacher on the missing shards; with `new_ranges`, write what stands beside the shards first. Returns the engine's probe."""
    is_new = not store.exists()
    if not is_new and not missing and name != "transformers":
        # What stands beside the shards is in the teacher's folder: nobody has to be started or asked for it.
        files = _first_files(source, *read_outer_layers(source, settings.device))
        store.begin(source.request(), files, store.ranges, engine=name, comparison=store.comparison)
        return None
    settings.tell({"engine": name})
    reference: Reference | str | None = None
    if is_new and name != "transformers":
        # First, so that its memory is free again when the engine takes what there is.
        reference = reference_answers(source, device=settings.device, batch_tokens=settings.batch_tokens)
    opened = _open(name, source, settings)
    with opened.engine:
        if new_ranges is not None:
            if not is_new:
                comparison = store.comparison
            elif reference is None or opened.name == "transformers":
                comparison = None
            else:
                comparison = _compare(source, opened, reference, settings).model_dump()
            files = _first_files(source, opened.head, opened.embedding)
            store.begin(source.request(), files, new_ranges, engine=opened.name, comparison=comparison)
        shards = answered_shards(source, opened, store.ranges, missing, settings.batch_tokens, settings.tell)
        for number, tensors in shards:
            store.write_shard(number, tensors)
            settings.tell({"written": number})
    return opened.probe


def _open(name: str, source: CacheSource, settings: _Settings) -> OpenedEngine:
    """The engine, or transformers where vLLM does not run the teacher and nobody asked for it."""

    def by(name: str) -> OpenedEngine:
        return open_engine(
            name,
            source,
            device=settings.device,
            batch_tokens=settings.batch_tokens,
            tensor_parallel=settings.tensor_parallel,
        )

    try:
        return by(name)
    except VllmCannotRun as error:
        if not settings.may_change:
            raise
        settings.tell({"engine": "transformers", "instead_of": name, "reason": str(error)})
    return by("transformers")


def _compare(
    source: CacheSource, opened: OpenedEngine, reference: Reference | str, settings: _Settings
) -> EngineComparison:
    """The engine's answers to the sample beside transformers'. InputError where they are not the same."""
    if isinstance(reference, str):
        comparison = EngineComparison(not_compared=reference)
    else:
        answers = checked(source, reference.questions, opened.engine.ask(reference.questions).result())
        comparison = require_equal(source, opened.name, reference, answers)
    settings.tell({"comparison": str(comparison)})
    return comparison


def _first_files(source: CacheSource, head: Head | None, embedding: Tensor | None) -> dict[str, dict[str, Tensor]]:
    """The index of rows and, with hidden states, the head and the input embedding where that is not the head's weight."""
    files = {ROWS: source.index.tensors()}
    if source.options.kind == "hidden_states":
        assert head is not None
        assert embedding is not None
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
            f"{output}: the cache needs {needed / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB left; "
            "fix: free space, give another folder, or keep less (stored_dtype float16 or bfloat16, top_k)"
        )
