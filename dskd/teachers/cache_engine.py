"""Which engine writes a teacher cache, and how it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dskd.errors import InputError
from dskd.modeling.head_alone import read_head
from dskd.modeling.lm_head import Head
from dskd.modeling.loading import load_model
from dskd.modeling.merged import whole_model
from dskd.teachers.cache_source import CacheSource
from dskd.teachers.engines.base import TeacherEngine
from dskd.teachers.engines.transformers import TransformersEngine
from dskd.teachers.engines.vllm import VllmEngine
from dskd.teachers.probe.probe import ExpectedTeacher
from dskd.teachers.probe.report import ProbeReport
from dskd.teachers.served import open_probed_engine

EngineName = Literal["auto", "vllm", "transformers"]
_PROBED = 4  # rows that a served teacher is asked about before all others
_ASKED_AHEAD = 4  # batches that vLLM has to do while a shard is written
SERVED = "served"


@dataclass(frozen=True)
class OpenedEngine:
    """An engine and what it does not say itself.

    Attributes:
        name: `transformers`, `vllm` or `served`.
        engine: What answers.
        head: The teacher's output head; None where log-probabilities are given.
        embedding: [vocabulary, hidden], its input embedding, where it is kept; the head's weight itself where the two are tied.
        ahead: How many batches it is asked at a time.
        probe: Of servers, what was found out about them.
    """

    name: str
    engine: TeacherEngine
    head: Head | None
    embedding: Tensor | None
    ahead: int
    probe: ProbeReport | None = None


def choose_engine(asked: EngineName, served: bool, begun: str | None, folder: Path, device: Any) -> str:
    """The engine for a cache that is asked for with `asked`, and was begun with `begun`.

    By itself: vLLM on a GPU, transformers elsewhere; on a CPU vLLM takes longer to start than it saves (docs/teacher-cache.md).

    Raises:
        InputError: For another engine than that of the folder: its numbers have other last bits.
    """
    if served:
        return SERVED
    if begun is None:
        return ("vllm" if torch.device(device).type == "cuda" else "transformers") if asked == "auto" else asked
    if asked not in ("auto", begun):
        raise InputError(
            f"{folder}: was begun with engine {begun}, not {asked}; fix: set engine to {begun}, or give another folder"
        )
    return begun


def open_engine(
    name: str,
    source: CacheSource,
    *,
    device: Any,
    batch_tokens: int,
    tensor_parallel: int,
) -> OpenedEngine:
    """Load the teacher, or reach it.

    Raises:
        VllmCannotRun: Where vLLM is not here, or does not run the teacher.
        InputError: Where the teacher cannot be used.
    """
    if name == "transformers":
        model = load_model(source.teacher, source.dtype)
        own = TransformersEngine(model, source.head.size, device=device, batch_tokens=batch_tokens)
        return OpenedEngine(name, own, own.head, own.embedding, ahead=1)
    if name == "vllm":
        with whole_model(source.teacher, source.dtype) as folder:
            head, embedding = _head(source, folder, device)
            length = int(source.lengths.max())
            vllm = VllmEngine(
                folder,
                dtype=source.dtype,
                device=device,
                length=length,
                batch_tokens=batch_tokens,
                tensor_parallel=tensor_parallel,
                name=str(source.teacher),
            )
        return OpenedEngine(name, vllm, head, embedding, _ASKED_AHEAD)
    assert source.served is not None
    head, embedding = _head(source, source.teacher, device)
    ahead = source.served.in_flight * len(source.served.addresses) + 1
    expected = ExpectedTeacher(
        name=str(source.teacher),
        tokenizer=source.tokenizer,
        vocabulary=source.vocabulary.truncate_to_head(source.head.size, str(source.teacher)),
        head=head,
        longest=int(source.lengths.max()),
        examples=tuple(source.questions(range(min(_PROBED, len(source.lengths))))),
    )
    engine, probe = open_probed_engine(source.served, expected)
    return OpenedEngine(name, engine, head, embedding, ahead, probe)


def read_outer_layers(source: CacheSource, device: Any) -> tuple[Head | None, Tensor | None]:
    """(head, embedding) of a teacher that vLLM or a server runs; neither is started or asked. InputError where it has none."""
    if source.served is not None:
        return _head(source, source.teacher, device)
    with whole_model(source.teacher, source.dtype) as folder:
        return _head(source, folder, device)


def _head(source: CacheSource, folder: Path, device: Any) -> tuple[Head | None, Tensor | None]:
    if source.kind != "hidden_states":
        return None, None
    embedding = source.options.kind == "hidden_states"
    return read_head(folder, source.vocabulary, dtype=source.dtype, device=device, embedding=embedding)
