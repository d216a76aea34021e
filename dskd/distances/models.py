"""The two models of a measurement: the student runs here, the teacher wherever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from dskd.distances.texts import Reader, Row
from dskd.errors import InputError
from dskd.modeling.folders import ADAPTER_CONFIG, CONFIG
from dskd.modeling.lm_head import check_head
from dskd.modeling.loading import load_config, load_model, load_tokenizer
from dskd.teachers.cached import attach, open_teacher_cache
from dskd.teachers.live import LiveTeacher
from dskd.teachers.options import TeacherOutputKind, TeacherSource
from dskd.teachers.questions import Question
from dskd.teachers.served import open_served_teacher
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import Vocabulary

_PROBED = 4  # texts that a served teacher is asked about first


def reader_of(tokenizer: Path, model: Path) -> Reader:
    """The tokens of the model in a folder, and how many it reads; of a served one, the folder may have no configuration."""
    loaded = load_tokenizer(tokenizer)
    positions = None
    if any((model / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
        positions = getattr(load_config(model).get_text_config(), "max_position_embeddings", None)
    return Reader(loaded, Vocabulary.from_tokenizer(loaded), positions)


class Models:
    """Models that run here, each loaded once for all texts on which it is asked.

    Args:
        dtype: Of their weights and products, and of the head of one that runs elsewhere.
        device: Where they are.
    """

    def __init__(self, dtype: str = "float32", device: Any = "cpu") -> None:
        self.dtype, self.device = dtype, torch.device(device)
        self._loaded: dict[Path, tuple[LiveTeacher, Vocabulary]] = {}

    def open(self, folder: Path, reader: Reader) -> tuple[LiveTeacher, Vocabulary]:
        """(a model, its tokens as far as its head predicts them)."""
        if folder not in self._loaded:
            model = load_model(folder, self.dtype).to(self.device)
            vocabulary = reader.vocabulary.truncate_to_head(model.get_output_embeddings().weight.shape[0], str(folder))
            check_head(model, vocabulary.size)
            self._loaded[folder] = LiveTeacher(model, vocabulary.size), vocabulary
        return self._loaded[folder]


def outputs_of(source: TeacherSource) -> tuple[TeacherOutputKind, int | None]:
    """What a teacher gives, known before it is opened, and how many of its most probable tokens where these are it."""
    if source.cache is not None:
        options = open_teacher_cache(source.cache, "cpu").options
        if options.kind == "top_k" and options.temperature != 1.0:
            raise InputError(
                f"{source.cache}: holds distributions at temperature {options.temperature:g}, and distances are those at 1; "
                "fix: build the cache with temperature 1"
            )
        return options.kind, options.k if options.kind == "top_k" else None
    if source.served is not None:
        return source.served.kind, source.served.k if source.served.kind == "top_k" else None
    return "hidden_states", None


@dataclass
class OpenedTeacher:
    """A teacher that answers, its tokens as far as its head predicts them, and for each row its place in a cache."""

    outputs: Teacher
    vocabulary: Vocabulary
    places: list[int] | None = None


def open_teacher(source: TeacherSource, reader: Reader, rows: Sequence[Row], models: Models) -> OpenedTeacher:
    """Open a teacher for these rows. Raises InputError where it is not that of their tokens, or its cache does not have them all."""
    if source.cache is not None:
        cached = open_teacher_cache(source.cache, models.device)
        if cached.vocabulary != reader.vocabulary.fingerprint:
            raise InputError(
                f"{source.cache}: of a teacher with another tokenizer; fix: build the cache of {source.folder}"
            )
        names = ("teacher_ids", "teacher_prompt_length")
        asked = datasets.Dataset.from_list([{name: row.columns[name] for name in names} for row in rows])
        places = list(attach(asked, source.cache)["teacher_row"])
        return OpenedTeacher(cached, reader.vocabulary.truncate_to_head(cached.size, str(source.folder)), places)
    if source.served is not None:
        served = open_served_teacher(
            source,
            reader.vocabulary,
            tokenizer=reader.tokenizer,
            dtype=models.dtype,
            device=models.device,
            embedding=False,
            longest=max(len(row.columns["teacher_ids"]) for row in rows),
            examples=[_question(row) for row in rows[:_PROBED]],
        )
        return OpenedTeacher(served, served.vocabulary)
    return OpenedTeacher(*models.open(source.folder, reader))


def _question(row: Row) -> Question:
    ids, first = row.columns["teacher_ids"], row.columns["teacher_prompt_length"]
    return Question(list(ids), np.arange(first - 1, len(ids) - 1))
