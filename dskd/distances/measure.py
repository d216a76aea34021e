"""Both models on a list of texts, batch by batch; a measurement that was killed goes on after its last whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dskd.data.collator import Collator
from dskd.distances.log import Log
from dskd.distances.models import Models, OpenedTeacher, open_teacher, outputs_of, reader_of
from dskd.distances.sums import Numbers, Sums
from dskd.distances.texts import Row, Text, digest_of, encode_all
from dskd.distances.tokens import Comparison, own_numbers
from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.teachers.live import LiveTeacher
from dskd.teachers.options import TeacherOutputKind, TeacherSource
from dskd.teachers.questions import in_batches
from dskd.tokenization.vocabulary import SharedVocabulary, share_vocabulary

BATCH_TOKENS = 4096  # of a batch, with padding
_PAIRS = ("kl_teacher_student", "kl_student_teacher", "top_k_overlap", "overlap_advantage")


@dataclass(frozen=True)
class Measured:
    """What was measured of each text.

    Attributes:
        items: By text a sum and what divides it, for each number of docs/distances.md; None where the text is left out.
        left_out: By the number of a text, why.
        unknown: By the name of a number, why this teacher does not give it.
        outputs: What the teacher gives; None without one.
        space: In what the distributions are compared: one `vocabulary`, or the `shared_vocabulary` of two.
        space_size: Of how many tokens that is.
    """

    items: list[Numbers | None]
    left_out: dict[int, str]
    unknown: dict[str, str]
    outputs: TeacherOutputKind | None = None
    space: Literal["vocabulary", "shared_vocabulary"] | None = None
    space_size: int | None = None


def measure(
    texts: Sequence[Text],
    student: Path,
    teacher: TeacherSource | None,
    *,
    models: Models | None = None,
    k: int = 10,
    batch_tokens: int = BATCH_TOKENS,
    log: Path | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Measured:
    """Measure how far a student is from a teacher on texts.

    The same texts make the same batches, so a measurement that goes on gives what an undisturbed one gives, bit for bit.

    Args:
        texts: On which, each with the prompt of either model.
        student: A model folder with its tokenizer.
        teacher: Where the teacher is: a model folder, a cache that has these texts, or a server; None for the student's numbers alone.
        models: What loads the models, for several measurements; by default in float32 on the CPU.
        k: Of how many of the most probable tokens of each the overlap is taken.
        batch_tokens: Tokens of a batch, with padding.
        log: A file to keep finished batches in.
        progress: Called with (texts done, texts) after each batch, which is in the log by then; it may raise.

    Raises:
        InputError: For a teacher that is not what it is taken for, or a cache without these texts.
    """
    models = models or Models()
    own = reader_of(student, student)
    other = None if teacher is None else reader_of(teacher.tokenizer_folder, teacher.folder)
    kind, known = (None, None) if teacher is None else outputs_of(teacher)
    whole = None if other is None else share_vocabulary(other.vocabulary, own.vocabulary)
    rows, left_out = encode_all(texts, own, other, same_vocabulary=whole is not None and whole.same)
    unknown = _unknown(kind, k, known)
    found = Log(log, digest_of(texts, k, kind, known, models.dtype, batch_tokens))
    batches = [[rows[number] for number in batch] for batch in in_batches([row.length for row in rows], batch_tokens)]
    missing = [batch for batch in batches if any(row.number not in found.items for row in batch)]
    if missing:
        with ExitStack() as stack:
            runner = _open(student, own, teacher, other, rows, models, k, stack)
            found.say(runner.about)
            done = len(rows) - sum(map(len, missing))
            for batch in missing:
                found.add({row.number: numbers for row, numbers in zip(batch, runner.numbers(batch), strict=True)})
                done += len(batch)
                progress(done, len(rows))
    if kind == "top_k" and (reason := _unknown_overlap(found, k)):
        unknown = dict.fromkeys(("top_k_overlap", "overlap_advantage"), reason) | unknown
    items: list[Numbers | None] = [found.items.get(number) for number in range(len(texts))]
    return Measured(items, left_out, unknown, kind, **found.about)


def _unknown_overlap(found: Log, k: int) -> str | None:
    """Why the teacher's most probable tokens do not say how many of them are the student's; None where they do."""
    if found.about.get("space") == "shared_vocabulary":
        return "of two vocabularies, the teacher's most probable tokens do not say which of the shared ones are the most probable"
    if any("top_k_overlap" not in numbers for numbers in found.items.values()):
        return f"the teacher gave fewer than {k} tokens in places"
    return None


def _unknown(kind: TeacherOutputKind | None, k: int, known: int | None) -> dict[str, str]:
    """Why a teacher that gives this, and so many of its most probable tokens, does not give some numbers."""
    of_teacher = (*_PAIRS, "teacher_entropy", "log_likelihood_difference", "aligned_share")
    if kind is None:
        return dict.fromkeys(of_teacher, "no teacher is compared with")
    if kind == "top_k":
        reason = "the teacher gives its most probable tokens alone"
        missing = dict.fromkeys(("teacher_entropy", "log_likelihood_difference"), reason)
        if known is not None and known < k:
            few = f"the teacher gives {known} tokens, fewer than {k}"
            missing |= dict.fromkeys(("top_k_overlap", "overlap_advantage"), few)
        return missing
    if kind == "text_log_probabilities":
        return dict.fromkeys((*_PAIRS, "teacher_entropy"), "the teacher gives the log-probability of the text alone")
    return {}


def _open(
    student: Path,
    own: Any,
    teacher: TeacherSource | None,
    other: Any,
    rows: Sequence[Row],
    models: Models,
    k: int,
    stack: ExitStack,
) -> _Runner:
    learner, vocabulary = models.open(student, own)
    if teacher is None:
        return _Runner(learner, None, None, rows, k, models.device)
    opened = open_teacher(teacher, other, rows, models)
    stack.callback(opened.outputs.close)
    return _Runner(learner, opened, share_vocabulary(opened.vocabulary, vocabulary), rows, k, models.device)


class _Runner:
    """Both models and what they have in common."""

    def __init__(
        self,
        student: LiveTeacher,
        teacher: OpenedTeacher | None,
        shared: SharedVocabulary | None,
        rows: Sequence[Row],
        k: int,
        device: torch.device,
    ) -> None:
        self._student, self._teacher, self._device = student, teacher, device
        self._comparison = None if shared is None else Comparison(shared, k, device)
        self._k = k
        places = None if teacher is None else teacher.places
        self._places = {} if places is None else {row.number: place for row, place in zip(rows, places, strict=True)}
        self.about: dict[str, Any] = {}
        if shared is not None:
            space = "vocabulary" if shared.same else "shared_vocabulary"
            self.about = {"space": space, "space_size": len(shared)}

    @torch.no_grad()
    def numbers(self, rows: Sequence[Row]) -> list[Numbers]:
        """The sums of each text of a batch, and what divides them."""
        columns = [
            {**row.columns, "teacher_row": self._places[row.number]} if self._places else row.columns for row in rows
        ]
        batch = Collator()(columns)
        if self._teacher is None:
            batch = TokenBatch(batch.student).to(self._device)
        else:
            self._teacher.outputs.request(batch)
            batch = self._teacher.outputs.fetch(batch.to(self._device))
            batch.teacher.head = self._teacher.outputs.head  # type: ignore[assignment]
        ran = self._student.fetch(TokenBatch(batch.student, batch.student)).teacher
        assert self._student.head is not None
        student = replace(ran, head=self._student.head)
        sums = Sums(len(rows))
        text = [row.student_tokens for row in rows]
        entropy, likelihood = own_numbers(student.head, student.hidden, student.labels)
        sums.add("student_entropy", student, entropy)
        if self._teacher is not None:
            self._of_both(sums, student, batch.teacher, rows, likelihood, text)
        return sums.of_items()

    def _of_both(
        self,
        sums: Sums,
        student: SideTokens,
        teacher: SideTokens,
        rows: Sequence[Row],
        likelihood: Tensor,
        text: Sequence[int],
    ) -> None:
        assert self._comparison is not None
        bytes_of = [float(row.bytes) for row in rows]
        given = teacher.label_log_probabilities
        sums.put("aligned_share", sums.counted(student, student.pairs), [float(n) for n in student.sizes.tolist()])
        if teacher.hidden is not None:
            entropy, given = own_numbers(teacher.head, teacher.hidden, teacher.labels)
            sums.add("teacher_entropy", teacher, entropy)
        if given is not None:
            ours = sums.first_of(student, likelihood, text)
            theirs = sums.first_of(teacher, given, [row.teacher_tokens for row in rows])
            difference = [q - p for q, p in zip(ours, theirs, strict=True)]
            sums.put("log_likelihood_difference", difference, bytes_of)
        if teacher.hidden is None and teacher.top_k_ids is None:
            return
        of = self._comparison.of_states if teacher.hidden is not None else self._comparison.of_top_k
        parts = list(of(teacher, student))
        names = set(parts[0]) if parts else set()
        found = {name: torch.cat([part[name] for part in parts]) for name in names.intersection(*map(set, parts))}
        for name in ("kl_teacher_student", "kl_student_teacher"):
            sums.add(name, student, found.get(name, likelihood.new_zeros(0)), student.pairs)
        if "overlapping" in found or not parts:
            self._of_overlap(sums, student, found, likelihood.new_zeros(0))

    def _of_overlap(self, sums: Sums, student: SideTokens, found: dict[str, Tensor], nothing: Tensor) -> None:
        assert self._comparison is not None
        common = found.get("overlapping", nothing)
        sums.add("top_k_overlap", student, common / self._comparison.most, student.pairs)
        overlapping = sums.total(student, common, student.pairs)
        sums.put("overlap_advantage", sums.total(student, found.get("advantage", nothing), student.pairs), overlapping)
