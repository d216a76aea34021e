"""A teacher whose outputs are read from a cache (docs/teacher-cache.md).

A student's data finds its rows in a cache by content (`attach`), so order and left-out rows do not matter.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dskd.errors import InputError
from dskd.losses.tokens import SideTokens
from dskd.modeling.lm_head import Head
from dskd.teachers.build_cache import TIED
from dskd.teachers.cache_source import rows_of, turn_digests
from dskd.teachers.cache_store import HEAD, CacheStore, ShardReader, TeacherCacheDamaged
from dskd.teachers.options import TeacherCacheOptions
from dskd.teachers.teacher import Teacher


class CachedTeacher(Teacher):
    """Rows read from the shards of a folder."""

    def __init__(self, store: CacheStore) -> None:
        super().__init__()
        self.options = TeacherCacheOptions.model_validate(store.request["options"])
        self.vocabulary: str = store.request["vocabulary"]  # fingerprint of the teacher's tokens
        self.size: int = store.request["head"]["size"]  # how many its head predicts
        self._reader = ShardReader(store)
        self._folder = store.folder

    def _read(self, side: SideTokens) -> dict[str, Tensor]:
        if side.cache_rows is None:
            raise InputError(f"{self._folder}: the data is not attached to this cache; fix: call attach")
        device = side.labels.device
        rows = self._reader.rows(side.cache_rows.tolist(), pin=device.type == "cuda")
        tokens = len(next(iter(rows.values())))
        if tokens != len(side.labels):  # shapes alone, no device read
            raise InputError(
                f"{self._folder}: has {tokens} tokens for a batch with {len(side.labels)} teacher labels; "
                "fix: attach the cache to this data again"
            )
        return {name: value.to(device, non_blocking=True) for name, value in rows.items()}


class CachedHiddenStates(CachedTeacher):
    """Hidden states and the teacher's predictions, as it computed them before they were rounded to the stored dtype."""

    head: Head

    def __init__(self, store: CacheStore, device: Any) -> None:
        super().__init__(store)
        numbers = store.request["head"]
        stored = store.file(HEAD, "weight", "bias", TIED)
        weight, bias = (stored[name].to(device) if name in stored else None for name in ("weight", "bias"))
        assert weight is not None
        self.head = Head(weight, bias, numbers["scale"], numbers["softcap"], numbers["size"])
        self._store, self._tied = store, TIED in stored

    @cached_property
    def embedding(self) -> Tensor | None:  # type: ignore[override]
        """On the device of the head, read when it is first asked for: most methods do not."""
        if self._tied:
            return self.head.weight
        stored = self._store.file(HEAD, "embedding")
        return stored["embedding"].to(self.head.weight.device) if stored else None

    def _fetch(self, side: SideTokens) -> SideTokens:
        with self._clock.running(torch.device("cpu")):  # the copy itself overlaps with what the device computes
            read = self._read(side)
            hidden = read["hidden"].to(self.head.weight.dtype)  # as a live teacher gives them
            return replace(side, hidden=hidden, predictions=read["predictions"].long())


class CachedTopK(CachedTeacher):
    """The k most probable tokens and their log probabilities, at the cache's temperature."""

    head = None

    def _fetch(self, side: SideTokens) -> SideTokens:
        with self._clock.running(torch.device("cpu")):
            read = self._read(side)
            return replace(side, top_k_ids=read["ids"].long(), top_k_log_probabilities=read["log_probabilities"])


class CachedTextLogProbabilities(CachedTeacher):
    """The log-probability of each label, at temperature 1."""

    head = None

    def _fetch(self, side: SideTokens) -> SideTokens:
        with self._clock.running(torch.device("cpu")):
            return replace(side, label_log_probabilities=self._read(side)["log_probabilities"])


def open_teacher_cache(folder: Path, device: Any) -> CachedHiddenStates | CachedTopK | CachedTextLogProbabilities:
    """Open the teacher cache in a folder, with every byte checked.

    Args:
        folder: A folder of `build_teacher_cache`.
        device: Where the teacher's head is needed.

    Raises:
        TeacherCacheDamaged: With the damaged file.
        InputError: Where there is no cache.
    """
    store = CacheStore(folder)
    if damaged := store.damaged_files():
        raise TeacherCacheDamaged(f"{folder / damaged[0]}: is missing or damaged; fix: build the cache again")
    if damaged_shards := store.damaged_shards():
        raise TeacherCacheDamaged(
            f"{store.shard_file(damaged_shards[0])}: is missing or damaged ({len(damaged_shards)} of {len(store.ranges)} shards); "
            "fix: build the cache again, which computes these alone"
        )
    kind = store.request["options"]["kind"]
    if kind == "hidden_states":
        return CachedHiddenStates(store, device)
    return CachedTopK(store) if kind == "top_k" else CachedTextLogProbabilities(store)


def attach(dataset: Any, folder: Path) -> Any:
    """A student's prepared dataset with the column `teacher_row`: where each row stands in the cache, which must have all."""
    row_of = CacheStore(folder).index.row_of
    digests = [turn_digests(ids, spans) for ids, spans in rows_of(dataset, "teacher")]
    missing = [number for number, own in enumerate(digests) if any(digest not in row_of for digest in own)]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(digests)} rows are not in the cache, first row {missing[0]}; fix: build it from "
            "the same examples, with the same max_length, prepared for the teacher alone"
        )
    if "teacher_row" in dataset.column_names:
        dataset = dataset.remove_columns("teacher_row")
    places = [[row_of[digest] for digest in own] for own in digests]
    several = any(len(own) > 1 for own in places)
    return dataset.add_column("teacher_row", places if several else [own[0] for own in places])
