"""A training set in the tokens of a student and, for distillation, its teacher."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import dskd.data
from dskd.compatibility import Problem
from dskd.data.examples import LeftOut, as_row, examples_in, prompt_and_response, write_examples
from dskd.data.formats import Row
from dskd.data.messages import TrainOn
from dskd.data.options import DEFAULT, DataOptions, Shape, Takes, takes_of
from dskd.data.reading import rows_of
from dskd.data.routes import Route
from dskd.errors import InputError
from dskd.io import write_lines_atomic
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import template_of
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from harness.costs.formulas import Lengths
from harness.costs.model_shapes import DataSize, published_data
from harness.responses.prompts import with_place_for_answer
from harness.runs.job_context import JobContext
from harness.steps.base import NOT_IDENTITY, OMIT_NONE, Input, Of, Step, TokenizerInput, TrainingSource
from harness.steps.libraries import TOKENIZERS
from harness.steps.world import World

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 4.0  # of text; Dolly has 4.5 with GPT-2's tokenizer and 4.1 with Mistral's
WORLD_BYTES_PER_TOKEN = 3.2  # 3.4 and 3.0 with its two tokenizers, which are small
_WORLD_SIZES = {  # measured on world 0
    "teacher": DataSize(2930, 130, 34, "measured"),
    "pretraining": DataSize(2930, 130, 34, "measured"),
    "student": DataSize(1000, 116, 32, "measured"),
    "clean": DataSize(250, 116, 32, "measured"),
    "prompts": DataSize(1000, 116, 32, "measured"),  # its responses are those that a teacher gives: like the data's
}


class Examples(Input):
    """The examples of a training set, before any tokenizer. name: the data set's in the matrix."""

    name: Annotated[str, NOT_IDENTITY] = ""

    @property
    def options(self) -> DataOptions:
        """How its rows are read."""
        return DEFAULT

    @property
    def size(self) -> DataSize:
        """How many there are and how long."""
        raise NotImplementedError

    @property
    def has_responses(self) -> bool:
        """Whether its rows are trained on as they are; without responses, a teacher has to write them first."""
        return True

    def rows(self, root: Path) -> Iterator[tuple[str, Row]]:
        """Its rows with their places; where they have prompts alone, with a mark in the place of the response."""
        found = rows_of(self.path(root))
        return found if self.has_responses else with_place_for_answer(found)

    bytes_per_token: ClassVar[float] = BYTES_PER_TOKEN

    def lengths(self, limit: int | None, bytes_per_token: float | None = None) -> Lengths:
        """Of the first `limit`, estimated from bytes; a response has its end. bytes_per_token: of a tokenizer that differs much."""
        size, per_token = self.size, bytes_per_token or self.bytes_per_token
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
    def has_responses(self) -> bool:
        return self.set != "prompts"

    @property
    def size(self) -> DataSize:
        return _WORLD_SIZES[self.set]


class RowExamples(Examples):
    """Rows that others wrote. Its fields but the name are those of `dskd.data.DataOptions`, None for what is not said."""

    prompt: str | None = None
    instruction: Annotated[str | None, OMIT_NONE] = None
    input: Annotated[str | None, OMIT_NONE] = None
    output: str | None = None
    system: Annotated[str | None, OMIT_NONE] = None
    reasoning: Annotated[str | None, OMIT_NONE] = None
    messages: Annotated[str | None, OMIT_NONE] = None
    tools: Annotated[str | None, OMIT_NONE] = None
    shape: Annotated[Shape | None, OMIT_NONE] = None
    train_on: Annotated[TrainOn | None, OMIT_NONE] = None
    split_reasoning: Annotated[bool | None, OMIT_NONE] = None

    @property
    def options(self) -> DataOptions:
        given = {name: getattr(self, name) for name in DataOptions.model_fields}
        return DataOptions(**{name: value for name, value in given.items() if value is not None})


class FileExamples(RowExamples):
    """A file of the user's, or a folder of files, in any form of docs/data-sources.md."""

    file: Annotated[Path, NOT_IDENTITY]
    sha256: str

    def path(self, root: Path) -> Path:
        return self.file

    def rows(self, root: Path) -> Iterator[tuple[str, Row]]:
        return rows_of(self.file)

    @property
    def size(self) -> DataSize:
        if self.file.exists():
            return _size_of(self.file, self.options)
        if (size := published_data(str(self.file))) is None:
            raise InputError(f"{self.file}: no such file; fix: correct the path")
        return size


def said(options: DataOptions) -> dict[str, Any]:
    """The fields of `RowExamples` that say these options."""
    given = {name: getattr(options, name) for name, field in DataOptions.model_fields.items()}
    return {name: value for name, value in given.items() if value != DataOptions.model_fields[name].default}


@lru_cache(maxsize=32)
def _size_of(path: Path, options: DataOptions) -> DataSize:
    return size_of_rows(rows_of(path), path, options)


def size_of_rows(rows: Iterable[tuple[str, Row]], source: Path | str, options: DataOptions) -> DataSize:
    """How many examples rows with their places make, and how long they are; source: what they are from, for errors."""
    count = asked = answered = 0
    for item in examples_in(rows, source, "any", options, left_out=lambda _: None):
        prompts, responses = prompt_and_response(item)
        count += 1
        asked += sum(len(text.encode()) for text in prompts)
        answered += sum(len(text.encode()) for text in responses)
    return DataSize(count, asked / count, answered / count, "counted")


def left_out_of(examples: Input) -> LeftOut:
    """Where rows that cannot be used are counted; in a file of the user's own a text that is missing is a mistake to correct."""
    return LeftOut(strict=isinstance(examples, FileExamples))


def read_examples(
    examples: Input, root: Path, folder: Path, takes: Takes, limit: int | None, route: Route | None = None
) -> tuple[Path, LeftOut]:
    """A file of examples that `dskd.data.load_examples` reads, and what was left out of it.

    Args:
        examples: A training set, or a teacher's responses to one.
        root: The folder of the run.
        folder: Where a file is written where the rows are not such a file.
        takes: What the models take.
        limit: So many rows are read.
        route: Of these the rows of one of several teachers are taken alone.
    """
    left_out = left_out_of(examples)
    options = examples.options if isinstance(examples, Examples) else DEFAULT
    place = examples.path(root)
    if isinstance(examples, Examples) and not examples.has_responses:
        made, rows = folder / "examples.jsonl", islice(examples.rows(root), limit)
        items = examples_in(rows, place, takes, options, left_out=left_out.add, route=route)
        write_lines_atomic(made, map(as_row, items))
        return made, left_out
    return write_examples(place, folder, takes, options, limit=limit, left_out=left_out, route=route), left_out


class PreparedData(Step):
    """Examples as token ids of the student and, with one, of the teacher, their responses aligned.

    limit: so many rows are read. route: of these the rows of one of several teachers are taken alone.
    """

    kind, version, place, product = "data", 2, "data", "dataset"

    examples: Of[Input]
    student_tokenizer: Of[TokenizerInput]
    teacher_tokenizer: Of[TokenizerInput] | None = None
    limit: int | None = None
    max_length: int
    route: Annotated[Route | None, OMIT_NONE] = None

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
        limit = self.limit or getattr(self.examples, "limit", None)
        lengths = self.source.lengths(limit, self.student_tokenizer.bytes_per_token)
        # Rows are not read for an estimate: teachers are taken to have as many each.
        teachers = 1 if self.route is None else len(self.route.teachers)
        return replace(lengths, examples=lengths.examples * (getattr(self.examples, "samples", None) or 1) // teachers)

    @property
    def libraries(self) -> tuple[str, ...]:
        return TOKENIZERS

    def preflight(self, root: Path) -> Sequence[Problem]:
        if isinstance(self.examples, RowExamples):
            self._check_rows(self.examples, root)
        for tokenizer in (self.student_tokenizer, self.teacher_tokenizer):
            if tokenizer is not None and not tokenizer.made_by:
                load_tokenizer(tokenizer.path(root))
        return ()

    def _check_rows(self, examples: RowExamples, root: Path) -> None:
        """Read every row once, before anything is made of them; those that will be left out are told."""
        sides = filter(None, (self.student_tokenizer, self.teacher_tokenizer))
        takes = takes_of(*(side.prompt_template for side in sides))
        left_out, rows, source = left_out_of(examples), islice(examples.rows(root), self.limit), examples.path(root)
        for _ in examples_in(rows, source, takes, examples.options, left_out=left_out.add, route=self.route):
            pass
        if left_out.total:
            log.warning("%s: rows that cannot be used are left out: %s", examples.name, left_out)

    def shared_tokens(self, root: Path) -> tuple[int, int, int, bool] | None:
        """How many tokens both vocabularies have, the sizes of teacher's and student's, and whether they are the same.

        None where they are not here yet.
        """
        sides = (self.teacher_tokenizer, self.student_tokenizer)
        if any(side is None or side.made_by for side in sides):
            return None
        return _shared_tokens(*(side.path(root) for side in sides if side is not None))

    def run(self, job: JobContext) -> None:
        folders = [side.path(job.root) for side in (self.student_tokenizer, self.teacher_tokenizer) if side is not None]
        takes = takes_of(*(template_of(load_tokenizer(folder)) for folder in folders))
        path, left_out = read_examples(self.examples, job.root, job.folder, takes, self.limit, self.route)
        report = dskd.data.prepare_dataset(
            path,
            self.path(job.root),
            student=folders[0],
            teacher=folders[1] if self.teacher_tokenizer else None,
            max_length=self.max_length,
            limit=self.limit,
            progress=partial(job.advance, "preparing examples"),  # the parts of the examples are on the disk
        )
        print(report.model_dump_json(indent=2))
        if left_out.total:
            print(f"rows that cannot be used, left out: {left_out}")
        unusable = {"unusable_rows": left_out.counts} if left_out.total else {}
        job.finish(job.output, report=report.model_dump() | unusable)


@lru_cache(maxsize=32)
def _shared_tokens(*folders: Path) -> tuple[int, int, int, bool]:
    teacher, student = (Vocabulary.from_tokenizer(load_tokenizer(folder)) for folder in folders)
    shared = share_vocabulary(teacher, student)
    # The ends of sequence are paired by their role; they alone say nothing.
    both = sum(teacher.tokens[k] is not None for k in shared.teacher_ids.tolist())
    return both, teacher.size, student.size, shared.same
