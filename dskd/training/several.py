"""A student that learns from several teachers at once (docs/several-teachers.md).

Each teacher k has a method of its own with its own projectors. With t_k the sums of its terms over what it teaches, and N_k their
normalizers, both of the whole optimizer step, the loss is

    L = Σ_k objective_k(t_k / Σ_j N_j)        where each example has one teacher,
    L = Σ_k w_k objective_k(t_k / N_k)        where all teach all examples, Σ_k w_k = 1.

Objectives are linear, so two copies of one teacher give the loss of that teacher alone in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dskd.losses.tokens import LossTerm
from dskd.methods.base import Method
from dskd.modeling.lm_head import Head, labelled_hidden_states, output_head
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import SharedVocabulary
from dskd.training.distiller import StudentModule
from dskd.training.lesson import Lesson
from dskd.training.several_examples import SeveralBatch

SEPARATOR = "/"  # in what is logged: NAME/term


@dataclass
class TaughtBy:
    """One of several teachers: a method made for it alone, what knows its outputs, the vocabulary, and its weight or None."""

    method: Method
    teacher: Teacher
    shared: SharedVocabulary
    weight: float | None = None


class SeveralTeachers:
    """Teachers by name, as one to a training. One may stand under several names."""

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        self.by_name = dict(teachers)
        self._distinct = list({id(teacher): teacher for teacher in teachers.values()}.values())

    @property
    def seconds(self) -> float:
        """Time spent in their `fetch` so far."""
        return sum(teacher.seconds for teacher in self._distinct)

    @property
    def examples(self) -> int:
        """Responses that they were asked about so far."""
        return sum(teacher.examples for teacher in self._distinct)

    @property
    def ahead(self) -> int:
        """How many steps ahead they are to be asked; one that answers at once has no need of it."""
        return max(teacher.ahead for teacher in self._distinct)

    def request(self, batch: SeveralBatch) -> None:
        for name, part in batch.parts.items():
            self.by_name[name].request(part.tokens)

    def fetch(self, batch: SeveralBatch) -> SeveralBatch:
        parts = {
            name: replace(part, tokens=self.by_name[name].fetch(part.tokens)) for name, part in batch.parts.items()
        }
        return SeveralBatch(batch.student, parts)

    def figures(self) -> dict[str, Any]:
        """Those of each that has some, by name."""
        return {name: figures for name, teacher in self.by_name.items() if (figures := teacher.figures())}

    @property
    def probe(self) -> dict[str, Any] | None:
        """What was found out before the first step about those where that is needed, by name; None where it is for none."""
        return {name: teacher.probe for name, teacher in self.by_name.items() if teacher.probe is not None} or None

    def close(self) -> None:
        for teacher in self._distinct:
            teacher.close()


class SeveralDistiller(StudentModule):
    """A student that learns from several teachers. The student reads a micro-batch once, each teacher what it teaches of it.

    Args:
        student: The model that is trained.
        teachers: By name, in the order in which losses are added up. All methods have the same class and options.
        student_size: The real tokens of the student's vocabulary.
        chunked, chunk_tokens: As of `Lesson`.
    """

    def __init__(
        self,
        student: Any,
        teachers: Mapping[str, TaughtBy],
        *,
        student_size: int,
        chunked: bool = True,
        chunk_tokens: int | None = None,
    ) -> None:
        super().__init__(student, student_size, chunk_tokens)
        self.method = next(iter(teachers.values())).method
        self.teacher = SeveralTeachers({name: own.teacher for name, own in teachers.items()})
        self.weights = {name: own.weight for name, own in teachers.items()}
        head = self.whole_student_head()
        self.lessons: dict[str, Lesson] = {}
        for number, (name, own) in enumerate(teachers.items(), 1):
            with _same_random_numbers(head, last=number == len(teachers)):
                settings: Any = {"chunked": chunked, "chunk_tokens": chunk_tokens}
                self.lessons[name] = Lesson(own.method, own.teacher, own.shared, head, **settings)
        found = {module_name(name): lesson.projectors for name, lesson in self.lessons.items()}
        trained = {key: projectors for key, projectors in found.items() if projectors is not None}
        self.projectors = nn.ModuleDict(trained) if trained else None

    def on_step_begin(self) -> None:
        head = self.whole_student_head()
        for lesson in self.lessons.values():
            lesson.method.on_step_begin(head)

    def precompute_step(
        self, batches: Sequence[SeveralBatch], total: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> None:
        """Nothing: methods with statistics of a step learn from one teacher (`dskd.compatibility.check_several`)."""

    def counts(self, batch: SeveralBatch) -> dict[str, Tensor]:
        """The normalizers of each teacher, under NAME/term; zero for one that teaches nothing here."""
        head = self.whole_student_head()
        found = {name: self.lessons[name].counts(part.tokens, head, self.student) for name, part in batch.parts.items()}
        terms = next(iter(found.values()))
        zeros = {term: torch.zeros_like(count) for term, count in terms.items()}
        return {f"{name}{SEPARATOR}{term}": found.get(name, zeros)[term] for name in self.lessons for term in terms}

    def forward(
        self, batch: SeveralBatch, totals: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, LossTerm]]:
        totals = self.counts(batch) if totals is None else totals
        by_teacher = {name: _below(totals, name) for name in self.lessons}
        terms = list(next(iter(by_teacher.values())))
        over_all = {term: torch.stack([own[term] for own in by_teacher.values()]).sum() for term in terms}
        hidden = labelled_hidden_states(self.student, batch.student)
        head = output_head(self.student, self.student_size)
        loss = hidden.new_zeros((), dtype=torch.float32)
        found: dict[str, dict[str, LossTerm]] = {}
        metrics: dict[str, dict[str, LossTerm]] = {}
        for name, lesson in self.lessons.items():
            weight, part = self.weights[name], batch.parts.get(name)
            if part is None:
                loss = loss + _zero_of(lesson)
                continue
            own = hidden if part.index is None else hidden[part.index]
            tokens = lesson.with_models(part.tokens, head, own, self.student)
            added, found[name] = lesson.loss(tokens, over_all if weight is None else by_teacher[name])
            metrics[name] = tokens.metrics
            loss = loss + (added if weight is None else weight * added)
        zero = torch.zeros_like(loss.detach())
        sums = {
            name: {term: found[name][term].total if name in found else zero for term in terms} for name in self.lessons
        }
        self.metrics = self._metrics(metrics)
        return loss, self._overall(sums, by_teacher, over_all) | {
            f"{name}{SEPARATOR}{term}": LossTerm(sums[name][term], by_teacher[name][term])
            for name in self.lessons
            for term in terms
        }

    def _overall(
        self,
        sums: Mapping[str, Mapping[str, Tensor]],
        by_teacher: Mapping[str, Mapping[str, Tensor]],
        over_all: Mapping[str, Tensor],
    ) -> dict[str, LossTerm]:
        """Terms of which the step's mean is what the loss has of them: over all examples, or weighted."""
        overall = {}
        for term, total in over_all.items():
            added = torch.zeros_like(total)
            for name, weight in self.weights.items():
                share = 1.0 if weight is None else weight * total / by_teacher[name][term].clamp_min(1.0)
                added = added + share * sums[name][term]
            overall[term] = LossTerm(added, total)
        return overall

    def _metrics(self, by_teacher: Mapping[str, Mapping[str, LossTerm]]) -> dict[str, LossTerm]:
        """Those of each teacher, and of all of them together, weighted where teachers are."""
        overall: dict[str, LossTerm] = {}
        for name, own in by_teacher.items():
            weight = self.weights[name] or 1.0  # a weight is never zero
            for key, term in own.items():
                scaled = LossTerm(weight * term.total, weight * term.normalizer)
                overall[key] = overall[key].plus(scaled) if key in overall else scaled
        named = {f"{name}{SEPARATOR}{key}": term for name, own in by_teacher.items() for key, term in own.items()}
        return overall | named

    def logged(self, means: dict[str, float], counts: Mapping[str, float]) -> dict[str, float]:
        """With NAME/loss, a teacher's objective on what it teaches, as if it were alone; nothing of one that taught nothing."""
        for name, lesson in self.lessons.items():
            own = _below(means, name)
            if any(_below(counts, name).values()):
                loss = lesson.method.objective({term: torch.tensor(value) for term, value in own.items()})
                means = {**means, f"{name}{SEPARATOR}loss": float(loss)}
            else:
                means = {key: value for key, value in means.items() if not key.startswith(name + SEPARATOR)}
        return means


def _below(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What stands under NAME/, without it."""
    prefix = name + SEPARATOR
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def module_name(teacher: str) -> str:
    """How a teacher's projectors are called in a module, where names have no dots and must not be those of attributes."""
    return "of_" + teacher.replace("%", "%25").replace(".", "%2E")


def _zero_of(lesson: Lesson) -> Any:
    """Zero that depends on the projectors: each process and micro-batch has a gradient of every parameter."""
    parameters = [] if lesson.projectors is None else [p for p in lesson.projectors.parameters() if p.requires_grad]
    return sum((0.0 * parameter.sum() for parameter in parameters), start=0.0)


@contextmanager
def _same_random_numbers(head: Head, *, last: bool) -> Iterator[None]:
    """Projectors of all teachers begin with the same numbers, so that copies of a teacher have the same; the run goes on as after one."""
    device = head.weight.device
    with torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=not last):
        yield
