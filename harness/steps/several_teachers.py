"""Several teachers of one student: the models, and the data of each (docs/several-teachers.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import dskd
import dskd.data
from dskd.compatibility import Problem, check, check_several, rules_of
from dskd.errors import InputError
from dskd.methods import Method
from dskd.training.options import TrainingOptions
from harness.costs.formulas import Lengths
from harness.costs.model_shapes import Shape
from harness.runs.job_context import JobContext
from harness.steps.base import BY_HAND, NOT_IDENTITY, OMIT_NONE, Input, ModelInput, Of, TokenizerInput, TrainingSource
from harness.steps.data import PreparedData
from harness.steps.served_model import ServedModel
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_reference import TeacherReference
from harness.steps.teacher_source import ASKED_LIVE, addresses_of, teacher_source


class SeveralTeachers(ModelInput):
    """Teachers of a matrix under one name: `{teachers: [a, b], route: COLUMN}` or `{teachers: {a: 0.7, b: 0.3}}`.

    Attributes:
        members: The models, each with its name.
        route: The column that names the teacher of a row.
        weights: Of the members, in their order; they sum to 1.
    """

    members: list[Of[ModelInput]]
    route: Annotated[str | None, OMIT_NONE] = None
    weights: Annotated[list[float] | None, OMIT_NONE] = None

    def identity_parts(self) -> dict[str, Any]:
        # Rows are routed by names, and figures stand under them.
        return {**super().identity_parts(), "names": self.names}

    @property
    def names(self) -> list[str]:
        """Of the members."""
        return [member.name for member in self.members]

    @property
    def tokenizer_input(self) -> TokenizerInput:
        raise InputError(f"models.{self.name}: several teachers have no one tokenizer; fix: name one of {self._list}")

    def path(self, root: Path) -> Path:
        raise InputError(
            f"models.{self.name}: is several models, which only teach together; fix: name one of {self._list}"
        )

    @property
    def shape(self) -> Shape:
        """The largest member's, which estimates take for all of them."""
        return max((member.shape for member in self.members), key=lambda shape: shape.parameters)

    @property
    def _list(self) -> str:
        return ", ".join(self.names)

    @property
    def lineage(self) -> list[TrainingSource]:
        return [source for member in self.members for source in member.lineage]


class TaughtData(Input):
    """What one of several teachers teaches, and where its outputs come from.

    Attributes:
        name: Of the teacher.
        teacher: None for a method without a teacher, which trains on the same examples.
        data: Its examples, in the tokens of the student and its own.
        reference: Of a served teacher, what its local copy answers to the probe's texts.
        outputs: `{"kind": "live"}` or the options of `cache`.
        weight: Of its loss; None where rows are routed.
    """

    name: str
    teacher: Of[ModelInput] | None
    data: Of[PreparedData]
    cache: Annotated[Of[TeacherCache] | None, NOT_IDENTITY] = None  # its parts are in the identity each by itself
    reference: Annotated[Of[TeacherReference] | None, NOT_IDENTITY] = None
    outputs: Annotated[dict[str, Any], BY_HAND] = ASKED_LIVE
    weight: Annotated[float | None, OMIT_NONE] = None

    def identity_parts(self) -> dict[str, Any]:
        version = {} if self.cache is None else {"version": TeacherCache.version}
        return {**super().identity_parts(), "signal": {**self.outputs, **version} if self.teacher is not None else None}

    @property
    def served(self) -> bool:
        """Whether the teacher is behind an address."""
        return isinstance(self.teacher, ServedModel)

    def source(self, root: Path) -> dskd.TeacherSource:
        """What `dskd.train` is told of it."""
        own: dict[str, Any] = {"name": self.name, "data": self.data.path(root), "weight": self.weight}
        if self.teacher is None:
            return dskd.TeacherSource(folder=self.data.student_tokenizer.path(root), **own)
        return teacher_source(self.teacher, self.cache, self.reference, self.outputs, root, **own)


class TaughtBySeveral(Input):
    """The data of a training with several teachers, in the place of one `PreparedData`.

    Attributes:
        parts: One a teacher.
    """

    parts: list[Of[TaughtData]]

    @property
    def examples(self) -> Input:
        """The training set that all of them are made of."""
        return self.parts[0].data.examples

    @property
    def set_name(self) -> str:
        """The name of its examples."""
        return self.parts[0].data.set_name

    @property
    def training_source(self) -> TrainingSource:
        """Its examples, as what is trained on them came from."""
        return self.parts[0].data.training_source

    @property
    def lengths(self) -> Lengths:
        """How many examples it has and how long they are: all parts of routed rows, one of weighted teachers."""
        lengths = [part.data.lengths for part in self.parts]
        if self.parts[0].weight is not None:
            return lengths[0]
        # Rows of one file, so equally long.
        return replace(lengths[0], examples=sum(each.examples for each in lengths))

    def kept(self, root: Path) -> int:
        """How many examples are trained on; of weighted teachers at most, as those count that all have."""
        counts = [dskd.data.preparation_report(part.data.path(root))["kept"] for part in self.parts]
        return min(counts) if self.parts[0].weight is not None else sum(counts)

    def sources(self, root: Path) -> list[dskd.TeacherSource]:
        """`teachers` of `dskd.train`."""
        return [part.source(root) for part in self.parts]

    def repair(self, job: JobContext) -> int:
        """Compute again what is damaged of the caches; for how many examples teachers were run."""
        return sum(part.cache.repair(job) for part in self.parts if part.cache is not None)

    def shared_cost(self, job: JobContext) -> dict[str, Any]:
        """What the caches took once, as their own jobs measured it; empty without one, and unknown where one is."""
        costs = [part.cache.shared_cost(job) for part in self.parts if part.cache is not None]
        names = costs[0] if costs else {}
        return {
            name: None if any(cost[name] is None for cost in costs) else sum(cost[name] for cost in costs)
            for name in names
        }

    @property
    def reaches(self) -> dict[str, tuple[str, ...]]:
        """Addresses that have to answer during the training, by teacher."""
        return {
            part.name: addresses
            for part in self.parts
            for addresses in addresses_of(part.teacher, part.cache, part.outputs).values()
        }

    def problems(self, method: Method, training: TrainingOptions) -> list[Problem]:
        """What is wrong with a method and these teachers as far as settings say."""
        if not method.requires.teacher:
            return []
        found = check_several(method)
        for part in self.parts:
            found += check(
                method,
                **rules_of(part.outputs, served=part.served),
                rollouts=training.rollouts,
                packing=training.packing is True,
            )
        return list(dict.fromkeys(found))  # one is often said of all of them

    def preflight(self, method: Method, student: str, root: Path) -> Iterator[Problem]:
        """What vocabularies say, as far as they are here."""
        for part in self.parts:
            counts = part.data.shared_tokens(root) if part.teacher is not None else None
            if counts is not None:
                yield from _of_vocabularies(method, part.name, student, *counts)


def _of_vocabularies(
    method: Method, teacher: str, student: str, shared: int, teacher_size: int, student_size: int, same: bool
) -> Sequence[Problem]:
    pair = f"teacher '{teacher}' ({teacher_size:,} tokens) and student '{student}' ({student_size:,} tokens)"
    problems = check(method, same_vocabulary=same, shared_tokens=shared, pair=pair)
    return [problem for problem in problems if problem.key in {"pair", "method"}]
