"""A training set in the tokens of a student and, for distillation, its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import dskd.data
from dskd.compatibility import Problem
from dskd.data.columns import apply_templates
from dskd.errors import InputError
from dskd.io import read_objects
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from harness.costs.formulas import Lengths
from harness.costs.model_shapes import DataSize, published_data
from harness.runs.job_context import JobContext
from harness.runs.store import write_jsonl_atomic
from harness.steps.base import NOT_IDENTITY, OMIT_NONE, Input, Of, Step, TokenizerInput, TrainingSource
from harness.steps.world import World

BYTES_PER_TOKEN = 4.0  # of text; Dolly has 4.5 with GPT-2's tokenizer and 4.1 with Mistral's
WORLD_BYTES_PER_TOKEN = 3.2  # 3.4 and 3.0 with its two tokenizers, which are small
_WORLD_SIZES = {  # measured on world 0
    "teacher": DataSize(2930, 130, 34, "measured"),
    "pretraining": DataSize(2930, 130, 34, "measured"),
    "student": DataSize(1000, 116, 32, "measured"),
}


class Examples(Input):
    """The examples of a training set, before any tokenizer. name: the data set's in the matrix."""

    name: Annotated[str, NOT_IDENTITY] = ""

    @property
    def columns(self) -> dict[str, str] | None:
        """The template of each key of an example; None where the lines have the keys themselves."""
        return None

    @property
    def size(self) -> DataSize:
        """How many there are and how long."""
        raise NotImplementedError

    bytes_per_token: ClassVar[float] = BYTES_PER_TOKEN

    def lengths(self, limit: int | None) -> Lengths:
        """Of the first `limit`, estimated from bytes; a response has its end."""
        size, per_token = self.size, self.bytes_per_token
        count = min(size.examples, limit or size.examples)
        return Lengths(count, size.prompt_bytes / per_token, size.response_bytes / per_token + 1)


class WorldExamples(Examples):
    """A training set of the small world."""

    small_world: Of[World]
    set: str
    bytes_per_token: ClassVar[float] = WORLD_BYTES_PER_TOKEN

    def path(self, root: Path) -> Path:
        return self.small_world.path(root) / "train" / f"{self.set}.jsonl"

    @property
    def size(self) -> DataSize:
        return _WORLD_SIZES[self.set]


class FileExamples(Examples):
    """A JSON-lines file of the user's. prompt, instruction, input, output: templates over its columns, or None."""

    file: Annotated[Path, NOT_IDENTITY]
    sha256: str
    prompt: str | None = None
    instruction: Annotated[str | None, OMIT_NONE] = None
    input: Annotated[str | None, OMIT_NONE] = None
    output: str | None = None

    def path(self, root: Path) -> Path:
        return self.file

    @property
    def columns(self) -> dict[str, str] | None:
        templates = {key: getattr(self, key) for key in ("prompt", "instruction", "input", "output")}
        return {key: text for key, text in templates.items() if text is not None} or None

    @property
    def size(self) -> DataSize:
        if self.file.is_file():
            return _size_of_file(self.file, tuple((self.columns or {}).items()))
        if (size := published_data(str(self.file))) is None:
            raise InputError(f"{self.file}: no such file; fix: correct the path")
        return size


@lru_cache(maxsize=32)
def _size_of_file(path: Path, columns: tuple[tuple[str, str], ...]) -> DataSize:
    rows: list[Any] = [*apply_templates(path, dict(columns))] if columns else [row for _, row in read_objects(path)]
    keys = ("prompt",) if "prompt" in rows[0] else ("instruction", "input")

    def mean(*keys: str) -> float:
        return sum(len(str(row.get(key, "")).encode()) for row in rows for key in keys) / len(rows)

    return DataSize(len(rows), mean(*keys), mean("output"), "counted")


def read_examples(path: Path, columns: dict[str, str] | None, folder: Path) -> Path:
    """The file of examples: `path` itself, or one in `folder` whose keys are made of columns."""
    if columns is None:
        return path
    made = folder / "examples.jsonl"
    write_jsonl_atomic(made, apply_templates(path, columns))
    return made


class PreparedData(Step):
    """Examples as token ids of the student and, with one, of the teacher, their responses aligned."""

    kind, version, place, product = "data", 2, "data", "dataset"

    examples: Of[Input]
    student_tokenizer: Of[TokenizerInput]
    teacher_tokenizer: Of[TokenizerInput] | None = None
    limit: int | None = None
    max_length: int

    @property
    def set_name(self) -> str:
        """The name of its examples."""
        return getattr(self.examples, "name", "")

    @property
    def training_source(self) -> TrainingSource:
        """Its examples, as what is trained on them came from."""
        return TrainingSource(self.set_name, self.examples, self.limit)

    @property
    def source(self) -> Examples:
        """The examples that it is made of, also where a teacher has answered them anew."""
        found: Any = self.examples
        return found if isinstance(found, Examples) else found.examples

    @property
    def lengths(self) -> Lengths:
        """How many examples it has and how long they are."""
        return self.source.lengths(self.limit or getattr(self.examples, "limit", None))

    def preflight(self, root: Path) -> Sequence[Problem]:
        if isinstance(self.examples, FileExamples):
            if self.examples.columns is None:
                instructions = self.student_tokenizer.prompt_template is not None
                dskd.data.load_examples(self.examples.file, instructions=instructions)
            else:
                apply_templates(self.examples.file, self.examples.columns)
        for tokenizer in (self.student_tokenizer, self.teacher_tokenizer):
            if tokenizer is not None and not tokenizer.made_by:
                load_tokenizer(tokenizer.path(root))
        return ()

    def shared_tokens(self, root: Path) -> tuple[int, int, int, bool] | None:
        """How many tokens both vocabularies have, the sizes of teacher's and student's, and whether they are the same.

        None where they are not here yet.
        """
        sides = (self.teacher_tokenizer, self.student_tokenizer)
        if any(side is None or side.made_by for side in sides):
            return None
        return _shared_tokens(*(side.path(root) for side in sides if side is not None))

    def run(self, job: JobContext) -> None:
        columns = self.examples.columns if isinstance(self.examples, Examples) else None
        report = dskd.data.prepare_dataset(
            read_examples(self.examples.path(job.root), columns, job.folder),
            self.path(job.root),
            student=self.student_tokenizer.path(job.root),
            teacher=self.teacher_tokenizer.path(job.root) if self.teacher_tokenizer else None,
            max_length=self.max_length,
            limit=self.limit,
        )
        print(report.model_dump_json(indent=2))
        job.finish(job.output, report=report.model_dump())


@lru_cache(maxsize=32)
def _shared_tokens(*folders: Path) -> tuple[int, int, int, bool]:
    teacher, student = (Vocabulary.from_tokenizer(load_tokenizer(folder)) for folder in folders)
    shared = share_vocabulary(teacher, student)
    # The ends of sequence are paired by their role; they alone say nothing.
    both = sum(teacher.tokens[k] is not None for k in shared.teacher_ids.tolist())
    return both, teacher.size, student.size, shared.same
