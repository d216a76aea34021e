"""What a teacher cache is computed from: a teacher, the rows that it is asked about, and what of its answer is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dskd.data.preparation import preparation_report
from dskd.data.rows import label_spans
from dskd.errors import InputError
from dskd.modeling.folders import CONFIG, parts_of, require_model_folder
from dskd.modeling.head_alone import find_head
from dskd.modeling.language_part import language_model
from dskd.modeling.lm_head import output_head
from dskd.modeling.loading import empty_model, load_tokenizer
from dskd.teachers.cache_store import RowIndex, row_digest
from dskd.teachers.options import ServedOptions, TeacherCacheOptions
from dskd.teachers.questions import Question, in_batches
from dskd.tokenization.vocabulary import Vocabulary

FORMAT = 2
_COLUMNS = ("ids", "prompt_length", "label_spans")


def rows_of(dataset: Any, side: str) -> Iterator[tuple[np.ndarray, list[tuple[int, int]]]]:
    """(ids, the [first, last) of each turn's labels) of each row of a prepared dataset."""
    names = [name for name in (f"{side}_{key}" for key in _COLUMNS) if name in dataset.column_names]
    for part in dataset.select_columns(names).with_format("numpy").iter(batch_size=1000):
        for values in zip(*(part[name] for name in names), strict=True):
            yield values[0], label_spans(dict(zip(names, values, strict=True)), side)


def turn_digests(ids: np.ndarray, spans: list[tuple[int, int]]) -> list[bytes]:
    """What a teacher is given for each turn of a row, and at which of its tokens it is asked: it sees nothing that comes later."""
    return [row_digest(ids[:last], first) for first, last in spans]


@dataclass(frozen=True)
class HeadNumbers:
    """What is known of a head without its weights: a factor and a soft-cap of its logits, and the number of real tokens."""

    scale: float
    softcap: float
    size: int


class CacheSource:
    """A teacher's folder, data prepared for it alone, and what is to be kept. The weights are not loaded.

    Args:
        teacher: A model folder; of a served teacher the configuration suffices here, and where it gives log-probabilities, nothing.
        data: Prepared for it alone.
        options: What is kept.
        dtype: Of the teacher's weights and products, or of a served one's head; "auto" for what its configuration says.
        served: Where the teacher is, if it is served.
        tokenizer: The folder of its tokenizer, by default `teacher`.

    Raises:
        InputError: For data of another tokenizer, examples beyond the teacher's positions, too many top-k tokens, and outputs that
            a server does not give.
    """

    def __init__(
        self,
        teacher: Path,
        data: Path,
        options: TeacherCacheOptions,
        dtype: str,
        served: ServedOptions | None = None,
        tokenizer: Path | None = None,
    ) -> None:
        import datasets

        self.teacher, self.options, self.served = teacher, options, served
        self.head_shape: tuple[int, int] = (0, 0)
        report = preparation_report(data)
        self.tokenizer = load_tokenizer(tokenizer or teacher)
        self.vocabulary = Vocabulary.from_tokenizer(self.tokenizer)  # all of it, also what the head does not predict
        if report["student_vocabulary"] != self.vocabulary.fingerprint:
            raise InputError(
                f"{data}: prepared for another tokenizer; fix: prepare it with student {tokenizer or teacher}, no teacher"
            )
        if served is None:
            require_model_folder(teacher)
        if self.kind == "hidden_states" or (teacher / CONFIG).is_file():
            self._read_shapes(dtype, report["longest_student"])
        else:
            self.dtype = "float32" if dtype == "auto" else dtype
            self.numbers, self.head_bytes = 0, 0
            self.head = HeadNumbers(1.0, 0.0, self.vocabulary.size)
        if options.kind == "top_k" and options.k > self.head.size:
            raise InputError(f"k: {options.k}, but {teacher} has {self.head.size} tokens; fix: a smaller k")
        if served is not None:
            _require_given(served, options)
        self._dataset = datasets.load_from_disk(str(data))
        self.index, self._places = _distinct(self._dataset)
        self.lengths = np.array([last for _, _, last in self._places])

    def _read_shapes(self, dtype: str, longest: int) -> None:
        """What the configuration says of the model; the longest example has to fit into it."""
        teacher, empty = self.teacher, language_model(empty_model(self.teacher))
        self.dtype = _dtype_of(empty.config) if dtype == "auto" else dtype
        positions = getattr(empty.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None and longest > positions:
            raise InputError(
                f"{teacher}: the model has {positions} positions, but the data examples of {longest} tokens; "
                f"fix: prepare it with max_length {positions}"
            )
        self.numbers = sum(parameter.numel() for parameter in empty.parameters())
        self.head_shape = tuple(empty.get_output_embeddings().weight.shape)
        head = output_head(empty, self.vocabulary.truncate_to_head(self.head_shape[0], str(teacher)).size)
        embedding = empty.get_input_embeddings().weight
        tied = embedding is empty.get_output_embeddings().weight
        numbers = sum(tensor.numel() for tensor in (head.weight, head.bias) if tensor is not None)
        numbers += 0 if tied else embedding.numel()
        # Of head.safetensors; log-probabilities need no head.
        self.head_bytes = numbers * getattr(torch, self.dtype).itemsize if self.options.kind == "hidden_states" else 0
        self.head = HeadNumbers(head.scale, head.softcap, head.size)

    def request(self) -> dict[str, Any]:
        """What makes this cache this one and no other, by content."""
        served = {} if self.served is None else {"served": self.served.identity()}
        return {
            "format": FORMAT,
            "teacher": self._content(),
            "vocabulary": self.vocabulary.fingerprint,
            "data": self.index.content,
            "dtype": self.dtype,
            "options": self.options.asked(),
            "head": vars(self.head),
            **served,
        }

    def _content(self) -> str:
        """sha256 of what is read of the teacher here."""
        if self.served is None:
            return _content_of(self.teacher)
        files = find_head(self.teacher, embedding=True).files if self.kind == "hidden_states" else []
        return _digest_of([*filter(Path.is_file, [parts_of(self.teacher).config]), *files])

    @property
    def kind(self) -> str:
        """What the teacher gives, of which the kept outputs are made."""
        return "hidden_states" if self.served is None else self.served.kind

    @property
    def stored_dtype(self) -> torch.dtype:
        """Of hidden states."""
        given = self.dtype if self.served is None else self.served.dtype
        return getattr(torch, given if self.options.stored_dtype == "same" else self.options.stored_dtype)

    @property
    def bytes_per_token(self) -> int:
        """What is stored for each labelled token."""
        if self.options.kind == "text_log_probabilities":
            return 4
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

    def batches(self, first: int, last: int, batch_tokens: int) -> Iterator[list[int]]:
        """The rows of a shard, from `first` to before `last`, as a teacher is asked about them together."""
        for batch in in_batches(self.lengths[first:last].tolist(), batch_tokens):
            yield [first + row for row in batch]

    def questions(self, rows: Sequence[int]) -> list[Question]:
        """A turn with all that is before it, as a text of its own, for each row."""
        questions = []
        for number, first, last in (self._places[row] for row in rows):
            ids = np.asarray(self._dataset[number]["student_ids"][:last]).tolist()
            questions.append(Question(ids, np.arange(first - 1, last - 1)))
        return questions


def _require_given(served: ServedOptions, options: TeacherCacheOptions) -> None:
    """InputError where what is to be kept cannot be made of what a server gives."""
    if served.kind == "hidden_states":
        return
    if served.kind != options.kind:
        raise InputError(
            f"kind: the served teacher gives {served.kind}, of which no {options.kind} can be made; "
            f"fix: set kind to {served.kind}, or served.kind to hidden_states"
        )
    if options.kind == "top_k" and options.k != served.k:
        raise InputError(
            f"k: {options.k}, but the served teacher gives {served.k}; fix: set k and served.k to one number"
        )
    if options.temperature != 1.0:
        raise InputError(
            f"temperature: {options.temperature}, but servers give log-probabilities at 1; "
            "fix: set temperature to 1, or served.kind to hidden_states"
        )


def _dtype_of(config: Any) -> str:
    """What a model's configuration says of its weights, or of what was quantised."""
    found = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None) or torch.float32
    return str(found).removeprefix("torch.")


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


def _content_of(folder: Path) -> str:
    """sha256 of a model folder's configuration and weights, its base model's too, under whatever name the folder stands."""
    patterns = ("config.json", "adapter_config.json", "*.safetensors", "*.bin")
    files = sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file())
    parts = parts_of(folder)
    return _digest_of(files, _content_of(parts.model) if parts.is_adapter else "")


def _digest_of(files: Iterable[Path], more: str = "") -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(f"{file.name}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    digest.update(more.encode())
    return digest.hexdigest()
