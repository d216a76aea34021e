"""What a teacher says at the labelled tokens of a batch: computed live, or kept once for all students, methods and seeds.

A cached signal is a folder (dskd/teachers/cache_store.py, docs/signals.md) that `build_signal` makes of data prepared for the teacher
alone. A student's data finds its rows there by content (`attach`), so order and left-out rows do not matter, and the teacher's
weights are not loaded again.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dskd.errors import InputError
from dskd.modeling.lm_head import Head, final_hidden_states, output_head
from dskd.teachers.build_cache import TIED, SignalReport, build_signal, estimate_bytes
from dskd.teachers.cache_source import SignalOptions, rows_of
from dskd.teachers.cache_store import HEAD, ShardReader, SignalDamaged, SignalStore, row_digest

__all__ = [
    "CachedHiddenStates",
    "CachedTopK",
    "LiveTeacher",
    "SignalDamaged",
    "SignalOptions",
    "SignalReport",
    "TeacherSignal",
    "attach",
    "build_signal",
    "estimate_bytes",
    "open_signal",
]


class _Clock:
    """Seconds spent; on a GPU measured there, and read only when they are asked for."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        if device.type == "cuda":
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record()
            yield
            events[1].record()
            self._events.append(events)
            while self._events[0][1].query() and len(self._events) > 1:  # asks whether it is done, does not wait
                self._add()
        else:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start

    def _add(self) -> None:
        first, last = self._events.pop(0)
        last.synchronize()
        self._seconds += first.elapsed_time(last) / 1000

    def read(self) -> float:
        while self._events:
            self._add()
        return self._seconds


class TeacherSignal(ABC):
    """One way to know what the teacher says. `head` is the teacher's, without gradient; None where only top-k tokens are known.

    `embedding` [rows, hidden]: its input embedding, without gradient; None where it is not known.
    """

    head: Head | None
    embedding: Tensor | None = None

    def __init__(self) -> None:
        self._clock = _Clock()

    @property
    def seconds(self) -> float:
        """Time spent in `look_up` so far."""
        return self._clock.read()

    @property
    def examples(self) -> int:
        """Examples that the teacher itself was run on so far; counts an example again when it comes again."""
        return 0

    @abstractmethod
    def look_up(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with what the teacher says at its labelled tokens, on the device of student_input_ids.

        teacher_hidden [tokens, hidden], teacher_predictions [tokens] (only cached), or of top_k teacher_top_k_ids [tokens, k] and
        teacher_top_k_log_probabilities [tokens, k] over the whole vocabulary, so the tail has what is missing to 1.
        """


class LiveTeacher(TeacherSignal):
    """The frozen model itself, run on every batch. `size` is the number of its real tokens.

    With `statistics` a batch gets, of all positions of its padded rows, prompt and padding included, teacher_positions, how many
    there are, in the memory of the CPU, and teacher_hidden_deviation, the standard deviation of their hidden states.
    """

    def __init__(self, model: Any, size: int, *, statistics: bool = False) -> None:
        super().__init__()
        self._model = model.requires_grad_(False).eval()
        self.head = output_head(model, size).detach()
        self.embedding = model.get_input_embeddings().weight.detach()
        self._examples: Tensor | int = 0
        self._statistics = statistics

    @property
    def examples(self) -> int:
        return int(self._examples)

    @torch.no_grad()
    def look_up(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        labelled = batch["teacher_labelled"]
        # Labelled positions of one example follow each other, those of two never do: also packed, and without a device read.
        self._examples = self._examples + (1 + (labelled.diff() != 1).sum())
        with self._clock.running(labelled.device):
            hidden = final_hidden_states(
                self._model,
                batch["teacher_input_ids"],
                batch.get("teacher_attention_mask"),
                batch["teacher_position_ids"],
            )
            found = {"teacher_hidden": hidden.flatten(0, 1)[labelled]}
            if self._statistics:
                found["teacher_positions"] = torch.tensor(batch["teacher_input_ids"].numel())
                found["teacher_hidden_deviation"] = hidden.float().std()
            return batch | found


class _CachedSignal(TeacherSignal):
    """Rows read from the shards of a folder. vocabulary: fingerprint of the teacher's tokens; size: how many its head predicts."""

    def __init__(self, store: SignalStore) -> None:
        super().__init__()
        self.head = None
        self.options = SignalOptions.model_validate(store.request["options"])
        self.vocabulary: str = store.request["vocabulary"]
        self.size: int = store.request["head"]["size"]
        self._reader = ShardReader(store)
        self._folder = store.folder

    def _read(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The stored tensors of the batch's rows, on the device."""
        device = batch["student_input_ids"].device
        rows = self._reader.rows(batch["teacher_rows"].tolist(), pin=device.type == "cuda")
        tokens = len(next(iter(rows.values())))
        if tokens != len(batch["teacher_labels"]):  # shapes alone, no device read
            raise InputError(
                f"{self._folder}: has {tokens} tokens for a batch with {len(batch['teacher_labels'])} teacher labels; "
                "fix: attach the signal to this data again"
            )
        return {name: value.to(device, non_blocking=True) for name, value in rows.items()}


class CachedHiddenStates(_CachedSignal):
    """Hidden states and the teacher's predictions, as it computed them before they were rounded to the stored dtype."""

    def __init__(self, store: SignalStore, device: Any) -> None:
        super().__init__(store)
        numbers = store.request["head"]
        stored = store.file(HEAD)
        weight, bias = (stored[name].to(device) if name in stored else None for name in ("weight", "bias"))
        assert weight is not None
        self.head = Head(weight, bias, numbers["scale"], numbers["softcap"], numbers["size"])
        self._embedding = weight if TIED in stored else stored.get("embedding")

    @cached_property
    def embedding(self) -> Tensor | None:  # type: ignore[override]
        """On the device of the head, from the first time on that it is asked for: most methods do not read it."""
        assert self.head is not None
        return None if self._embedding is None else self._embedding.to(self.head.weight.device)

    def look_up(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        assert self.head is not None
        with self._clock.running(torch.device("cpu")):  # the copy itself overlaps with what the device computes
            read = self._read(batch)
            hidden = read["hidden"].to(self.head.weight.dtype)  # as a live teacher gives them
            return {**batch, "teacher_hidden": hidden, "teacher_predictions": read["predictions"].long()}


class CachedTopK(_CachedSignal):
    """The k most probable tokens and their log probabilities, at the signal's temperature."""

    @property
    def temperature(self) -> float:
        return self.options.temperature

    def look_up(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with self._clock.running(torch.device("cpu")):
            read = self._read(batch)
            return {
                **batch,
                "teacher_top_k_ids": read["ids"].long(),
                "teacher_top_k_log_probabilities": read["log_probabilities"],
            }


def open_signal(folder: Path, device: Any) -> CachedHiddenStates | CachedTopK:
    """The signal in a folder, every byte checked. Raises SignalDamaged, which names the shard; InputError where there is none."""
    store = SignalStore(folder)
    if damaged := store.damaged_files():
        raise SignalDamaged(f"{folder / damaged[0]}: is missing or damaged; fix: build the signal again")
    if damaged_shards := store.damaged_shards():
        raise SignalDamaged(
            f"{store.shard_file(damaged_shards[0])}: is missing or damaged ({len(damaged_shards)} of {len(store.ranges)} shards); "
            "fix: build the signal again, which computes these alone"
        )
    return CachedTopK(store) if store.request["options"]["kind"] == "top_k" else CachedHiddenStates(store, device)


def attach(dataset: Any, folder: Path) -> Any:
    """A student's prepared dataset with the column `teacher_row`: where each row stands in the signal.

    Raises InputError for a row that the signal does not have.
    """
    row_of = SignalStore(folder).index.row_of
    digests = [row_digest(ids, prompt_length) for ids, prompt_length in rows_of(dataset, "teacher")]
    missing = [number for number, digest in enumerate(digests) if digest not in row_of]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(digests)} rows are not in the signal, first row {missing[0]}; fix: build it from "
            "the same examples, with the same max_length, prepared for the teacher alone"
        )
    if "teacher_row" in dataset.column_names:
        dataset = dataset.remove_columns("teacher_row")
    return dataset.add_column("teacher_row", [row_of[digest] for digest in digests])
