"""What a teacher cache is computed from: a teacher, the rows that it is asked about, and what of its answer is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.data.collator import Collator
from dskd.data.preparation import preparation_report
from dskd.data.rows import label_spans
from dskd.errors import InputError, TrainingFailed
from dskd.modeling.causality import check_causal
from dskd.modeling.folders import parts_of, require_model_folder
from dskd.modeling.language_part import language_model
from dskd.modeling.lm_head import Head, labelled_hidden_states, output_head
from dskd.modeling.loading import empty_model, load_model, load_tokenizer
from dskd.teachers.cache_store import RowIndex, row_digest
from dskd.teachers.options import TeacherCacheOptions
from dskd.tokenization.vocabulary import Vocabulary

FORMAT = 2
_COLUMNS = ("ids", "prompt_length", "label_spans")
LOGITS_AT_ONCE = 2**24  # float32 logits that are in memory at a time: 64 MiB


def rows_of(dataset: Any, side: str) -> Iterator[tuple[np.ndarray, list[tuple[int, int]]]]:
    """(ids, the [first, last) of each turn's labels) of each row of a prepared dataset."""
    names = [name for name in (f"{side}_{key}" for key in _COLUMNS) if name in dataset.column_names]
    for part in dataset.select_columns(names).with_format("numpy").iter(batch_size=1000):
        for values in zip(*(part[name] for name in names), strict=True):
            yield values[0], label_spans(dict(zip(names, values, strict=True)), side)


def turn_digests(ids: np.ndarray, spans: list[tuple[int, int]]) -> list[bytes]:
    """What a teacher is given for each turn of a row, and at which of its tokens it is asked: it sees nothing that comes later."""
    return [row_digest(ids[:last], first) for first, last in spans]


class CacheSource:
    """A teacher's folder, data prepared for it alone, and what is to be kept. The weights are not loaded until `load`.

    Raises InputError for data of another tokenizer, examples beyond the teacher's positions, and too many top-k tokens.
    """

    def __init__(self, teacher: Path, data: Path, options: TeacherCacheOptions, dtype: str) -> None:
        import datasets

        self.teacher, self.options, self.dtype = teacher, options, dtype
        report = preparation_report(data)
        whole = Vocabulary.from_tokenizer(load_tokenizer(teacher))
        if report["student_vocabulary"] != whole.fingerprint:
            raise InputError(
                f"{data}: prepared for another tokenizer; fix: prepare it with student {teacher}, no teacher"
            )
        require_model_folder(teacher)
        empty = language_model(empty_model(teacher))
        positions = getattr(empty.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and report["longest_student"] > positions:
            raise InputError(
                f"{teacher}: the model has {positions} positions, but the data examples of {report['longest_student']} tokens; "
                f"fix: prepare it with max_length {positions}"
            )
        self.head_shape: tuple[int, int] = tuple(empty.get_output_embeddings().weight.shape)
        head = output_head(empty, whole.truncate_to_head(self.head_shape[0], str(teacher)).size)
        embedding = empty.get_input_embeddings().weight
        tied = embedding is empty.get_output_embeddings().weight
        numbers = sum(tensor.numel() for tensor in (head.weight, head.bias) if tensor is not None)
        numbers += 0 if tied else embedding.numel()
        # Of head.safetensors; top-k tokens need no head.
        self.head_bytes = 0 if options.kind == "top_k" else numbers * getattr(torch, dtype).itemsize
        self.head_numbers = {"scale": head.scale, "softcap": head.softcap, "size": head.size}
        self.vocabulary = whole.fingerprint
        if options.kind == "top_k" and options.k > head.size:
            raise InputError(f"k: {options.k}, but {teacher} has {head.size} tokens; fix: a smaller k")
        self._dataset = datasets.load_from_disk(str(data))
        self.index, self._places = _distinct(self._dataset)
        self._lengths = np.array([last for _, _, last in self._places])

    def request(self) -> dict[str, Any]:
        """What makes this cache this one and no other, by content."""
        return {
            "format": FORMAT,
            "teacher": _content_of(self.teacher),
            "vocabulary": self.vocabulary,
            "data": self.index.content,
            "dtype": self.dtype,
            "options": self.options.asked(),
            "head": self.head_numbers,
        }

    @property
    def stored_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype if self.options.stored_dtype == "same" else self.options.stored_dtype)

    @property
    def bytes_per_token(self) -> int:
        if self.options.kind == "top_k":
            return self.options.k * (4 + 4)  # an id and a log probability
        return self.head_shape[1] * self.stored_dtype.itemsize + 4  # a hidden state and a prediction

    def shard_ranges(self, most_bytes: int, most_rows: int) -> list[tuple[int, int]]:
        """Rows cut into [first, last) of at most `most_rows` rows and `most_bytes`; a row that is larger stands alone."""
        ranges: list[tuple[int, int]] = []
        offsets, first, rows = self.index.offsets, 0, len(self.index.digests)
        while first < rows:
            tokens = offsets[first] + most_bytes // self.bytes_per_token
            fits = int(np.searchsorted(offsets, tokens, side="right")) - 1
            last = min(max(fits, first + 1), first + most_rows, rows)
            ranges.append((first, last))
            first = last
        return ranges

    def load(self, device: Any) -> tuple[Any, Head]:
        """(frozen teacher, its head) on the device."""
        model = load_model(self.teacher, self.dtype).to(device).requires_grad_(False).eval()
        size = int(self.head_numbers["size"])
        check_causal(model, size)
        return model, output_head(model, size).detach()

    @torch.no_grad()
    def run(
        self, model: Any, head: Head, first: int, last: int, batch_tokens: int, done: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """The tensors of a shard, rows `first` to before `last` one after the other. `done` gets the rows of each batch."""
        offsets = self.index.offsets
        kept: dict[str, Tensor] = {}
        for rows in _batches(first, last, self._lengths, batch_tokens):
            batch = Collator()([self._turn(row) for row in rows]).to(head.weight.device)
            said = self._to_keep(head, labelled_hidden_states(model, batch.student))
            sizes = [int(offsets[row + 1] - offsets[row]) for row in rows]
            for name, value in said.items():
                if name not in kept:
                    shape = (int(offsets[last] - offsets[first]), *value.shape[1:])
                    kept[name] = torch.empty(shape, dtype=value.dtype)
                for row, part in zip(rows, value.cpu().split(sizes), strict=True):
                    kept[name][offsets[row] - offsets[first] : offsets[row + 1] - offsets[first]] = part
            done(len(rows))
        return kept

    def _turn(self, row: int) -> dict[str, Any]:
        """A turn with all that is before it, as a row of its own."""
        number, first, last = self._places[row]
        return {"student_ids": self._dataset[number]["student_ids"][:last], "student_prompt_length": first}

    def _to_keep(self, head: Head, hidden: Tensor) -> dict[str, Tensor]:
        """hidden [tokens, hidden] -> the stored tensors of these tokens. Logits are made of a few tokens at a time."""
        if not bool(hidden.isfinite().all()):
            raise TrainingFailed(
                f"{self.teacher}: gives hidden states that are not finite in {self.dtype}; fix: use another dtype"
            )
        parts = hidden.split(max(1, LOGITS_AT_ONCE // len(head.weight)))
        if self.options.kind == "top_k":
            log_p = ((head.logits(part).float() / self.options.temperature).log_softmax(-1) for part in parts)
            values, ids = zip(*(part.topk(self.options.k, dim=-1) for part in log_p), strict=True)
            return {"ids": torch.cat(ids).int(), "log_probabilities": torch.cat(values)}
        stored = hidden.to(self.stored_dtype)
        if not bool(stored.isfinite().all()):
            raise InputError(
                f"stored_dtype: {self.teacher} gives hidden states up to {float(hidden.abs().max()):.3g}, beyond float16; "
                "fix: stored_dtype bfloat16"
            )
        predictions = torch.cat([head.logits(part).argmax(-1) for part in parts])
        return {"hidden": stored, "predictions": predictions.int()}


def _distinct(dataset: Any) -> tuple[RowIndex, list[tuple[int, int, int]]]:
    """(index of the distinct turns, the dataset row, first and last label of each), in order of first appearance."""
    seen: set[bytes] = set()
    digests, places = [], []
    for number, (ids, spans) in enumerate(rows_of(dataset, "student")):
        for digest, (first, last) in zip(turn_digests(ids, spans), spans, strict=True):
            if digest not in seen:
                seen.add(digest)
                digests.append(digest)
                places.append((number, first, last))
    offsets = np.concatenate(([0], np.cumsum([last - first for _, first, last in places]))).astype(np.int64)
    return RowIndex(digests, offsets), places


def _batches(first: int, last: int, lengths: np.ndarray, batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for row in sorted(range(first, last), key=lambda row: -lengths[row]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _content_of(folder: Path) -> str:
    """sha256 of a model folder's configuration and weights, its base model's too, under whatever name the folder stands."""
    digest = hashlib.sha256()
    patterns = ("config.json", "adapter_config.json", "*.safetensors", "*.bin")
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file()):
        with file.open("rb") as stream:
            digest.update(f"{file.name}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    parts = parts_of(folder)
    if parts.is_adapter:
        digest.update(_content_of(parts.model).encode())
    return digest.hexdigest()
