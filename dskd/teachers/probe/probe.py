"""Runs the probe: before the first step of a training, and again for an address that was away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from dskd.errors import InputError, PartnerLost, TrainingFailed
from dskd.modeling.lm_head import Head
from dskd.teachers.engines.base import Answers
from dskd.teachers.engines.served_engine import ServedEngine
from dskd.teachers.http import Away, model_names
from dskd.teachers.options import ServedOptions
from dskd.teachers.probe import checks, server
from dskd.teachers.probe.figures import mean_nats, split
from dskd.teachers.probe.reference import ReferenceAnswer, read_reference
from dskd.teachers.probe.report import ProbeCheck, ProbeReport
from dskd.teachers.probe.texts import FILLING, LENGTH, PLAIN, TEXTS, question_of
from dskd.teachers.questions import Question
from dskd.tokenization.vocabulary import Vocabulary

log = logging.getLogger(__name__)

_PAUSES = (0.25, 0.5, 1.0, 2.0, 5.0)  # seconds before a probe that met a fault begins anew
_AT_ONCE = 8  # requests at each address, so that a text stands beside others than the first time


@dataclass(frozen=True)
class ExpectedTeacher:
    """What the servers are taken for.

    Attributes:
        name: How messages call it.
        tokenizer: Its tokenizer.
        vocabulary: Its tokens, as far as its head predicts them.
        head: Its head, where hidden states are asked for.
        longest: Tokens of the longest example; None where the data is not known.
        examples: Some of the training, which it should find likely; none where they are not known.
    """

    name: str
    tokenizer: Any
    vocabulary: Vocabulary
    head: Head | None = None
    longest: int | None = None
    examples: tuple[Question, ...] = ()


class Probe:
    """The probe of one teacher, which remembers what was answered first.

    Args:
        engine: What the training asks, too.
        served: The engine's options.
        expected: What has to be behind it.
    """

    def __init__(self, engine: ServedEngine, served: ServedOptions, expected: ExpectedTeacher) -> None:
        self._engine, self._served, self._expected = engine, served, expected
        self._running = threading.Lock()  # an address may come back while the others are asked
        self._texts: list[str] = []  # as messages show them
        self._questions: list[Question] = []
        self._first: tuple[str, list[Answers]] | None = None  # an address, and its answers to the questions

    def run(self, addresses: Sequence[str] | None = None) -> ProbeReport:
        """Put all questions to these addresses, by default to all. What is refused stands in the report, and raises nothing.

        Raises:
            TrainingFailed: Where no address answers within the patience of the options.
            InputError: For a reference that cannot be read.
        """
        pauses, first_failure = iter(_PAUSES), 0.0
        while True:
            if addresses is None:
                self._engine.servers.get(
                    "/v1/models", model_names
                ).result()  # waits for servers that are still starting
            try:
                with self._running:
                    return self._run(addresses or self._engine.servers.addresses)
            except Away as error:
                now = time.monotonic()
                first_failure = first_failure or now
                left = first_failure + self._served.patience - now
                if left <= 0:
                    raise PartnerLost(f"{error}; fix: start the server again") from None
                log.warning("%s; the probe begins anew, for up to %.0f s", error, left)
                time.sleep(min(next(pauses, _PAUSES[-1]), left))

    def again(self, address: str) -> None:
        """Probe an address that was away: it has to be what the training began with.

        Raises:
            TrainingFailed: Where it is something else.
            Away: Where it does not answer after all.
        """
        with self._running:
            if self._first is None:  # nothing was asked yet, so that the first run asks this address too
                return
            report = self._run([address])
        try:
            report.require(self._expected.name)
        except InputError as error:
            raise TrainingFailed(f"{error}; the last checkpoint stays") from None

    def _run(self, addresses: Sequence[str]) -> ProbeReport:
        """Away where none of them answers, or one does no longer."""
        start = time.perf_counter()
        found: list[ProbeCheck] = []
        facts: dict[str, server.ServerFacts] = {}
        for address in addresses:
            try:
                facts[address], own = self._ask_for_facts(address)
                found += own
            except Away as error:
                found.append(_not_checked("reachable", f"{error}; it is probed when it answers", address))
        if not facts:
            raise Away(f"{found[-1].address}: {found[-1].found.partition(';')[0]}")
        if not _refused(found):
            found += self._of_outputs(list(facts), [own.length for own in facts.values() if own.length is not None])
        return ProbeReport(
            kind=self._served.kind,
            model=self._engine.model,
            versions={address: own.version for address, own in facts.items()},
            checks=found,
            seconds=time.perf_counter() - start,
        )

    def _ask_for_facts(self, address: str) -> tuple[server.ServerFacts, list[ProbeCheck]]:
        servers, model, expected = self._engine.servers, self._engine.model, self._expected
        facts, found = server.facts(servers, address, model, expected.longest)
        if not _refused(found):
            found.append(server.vocabulary(servers, address, model, expected.tokenizer, expected.vocabulary))
        return facts, found

    def _of_outputs(self, here: Sequence[str], lengths: Sequence[int]) -> list[ProbeCheck]:
        """Ask each of these addresses everything twice: text by text, and all at once beside other texts."""
        found: list[ProbeCheck] = []
        if not self._questions:
            known = [(repr(text[:24]), question) for text in TEXTS if (question := self._question(text, lengths))]
            self._texts, self._questions = [text for text, _ in known], [question for _, question in known]
        reference: list[ReferenceAnswer] | str = "no answers of a local copy are given"
        if self._served.reference is not None:
            reference = read_reference(self._served.reference, self._questions)
        try:
            alone = {}
            for address in here:
                alone[address] = [self._engine.ask_at(address, [question]) for question in self._questions]
                found += self._of_one(address, alone[address])
            if not _refused(found):
                found += self._of_pairs(alone, self._ask_at_once(here, lengths))
                found += self._of_model(here[0], alone[here[0]], reference)
        except (InputError, TrainingFailed) as error:  # what an engine refuses, such as other shapes
            where, _, reason = str(error).partition(": ")
            what, _, fix = reason.partition("; fix: ")
            found.append(ProbeCheck(name="answers", result="refused", found=what, fix=fix, address=where))
        except Away as error:
            raise Away(f"{self._expected.name}: a server went away while it was probed: {error}") from None
        if self._first is None and not _refused(found):
            self._first = here[0], alone[here[0]]
        return found

    def _question(self, text: str, lengths: Sequence[int]) -> Question | None:
        return question_of(self._expected.tokenizer, text, min([LENGTH, *lengths]), self._expected.vocabulary.size)

    def _ask_at_once(self, here: Sequence[str], lengths: Sequence[int]) -> dict[str, list[Answers]]:
        others = [question for text in FILLING if (question := self._question(text, lengths))]
        with ThreadPoolExecutor(_AT_ONCE * len(here)) as threads:

            def ask(address: str, question: Question) -> Future[Answers]:
                return threads.submit(self._engine.ask_at, address, [question])

            beside = [ask(address, other) for other in others for address in here]
            asked = {address: [ask(address, question) for question in reversed(self._questions)] for address in here}
            wait(beside)
            return {address: [future.result() for future in reversed(own)] for address, own in asked.items()}

    def _of_one(self, address: str, answers: list[Answers]) -> Iterator[ProbeCheck]:
        """What the answers of an address say by themselves."""
        head, kind = self._expected.head, self._served.kind
        yield checks.finite(address, answers, self._served.dtype if kind == "hidden_states" else "float32")
        if kind != "hidden_states":
            yield checks.probabilities(address, answers, self._expected.vocabulary.size)
            return
        assert head is not None
        yield checks.hidden_size(address, answers[0], head)
        yield checks.raw_states(address, answers)

    def _of_pairs(self, alone: dict[str, list[Answers]], at_once: dict[str, list[Answers]]) -> Iterator[ProbeCheck]:
        """Whether one model answers, and answers alike."""
        compare = checks.Comparison(self._served.kind, self._served.dtype)
        for address, answers in alone.items():
            pairs = zip(self._texts, at_once[address], answers, strict=True)
            yield compare.same(
                "the same again",
                pairs,
                "look for a fault of the server; alone and beside others, a text has the same states",
                address,
            )
        if self._first is not None:
            place, first = self._first
            for address, answers in alone.items():
                fix = f"serve the model that the training began with at {place}, or start another training"
                yield compare.same("the same as before", zip(self._texts, answers, first, strict=True), fix, address)
        if len(alone) > 1:
            fix = "serve one model in one dtype behind all addresses, or leave the others out"
            yield compare.same("replicas", checks.replica_pairs((alone, at_once), self._texts), fix)
        elif self._first is None:
            yield _not_checked("replicas", "one address answers")

    def _of_model(
        self, address: str, answers: list[Answers], known: list[ReferenceAnswer] | str
    ) -> Iterator[ProbeCheck]:
        """Whether it is the model that it is taken for; the addresses are known to answer alike."""
        served, head = self._served, self._expected.head
        if isinstance(known, str):
            yield _not_checked("local copy", known)
        else:
            if head is not None:
                yield checks.head_of_copy(head, known, self._questions)
            expected = [
                each.answer(served.kind, len(q.positions)) for each, q in zip(known, self._questions, strict=True)
            ]
            compare = checks.Comparison(served.kind, served.dtype)
            fix = "serve the model of the local copy as it is stored, or give the copy of what is served"
            yield compare.same("local copy", zip(self._texts, answers, expected, strict=True), fix, address)
        if served.kind == "top_k":
            yield _not_checked("likely text", "the text may not be among the most probable tokens")
            return
        plain = [number for number, text in enumerate(self._texts) if text in {repr(each[:24]) for each in PLAIN}]
        nats = {"plain text": mean_nats(head, [answers[k] for k in plain], [self._questions[k] for k in plain])}
        if examples := list(self._expected.examples):
            given = split(self._engine.ask_at(address, examples), examples)
            nats["examples of the data"] = mean_nats(head, given, examples)
        size, hidden = self._expected.vocabulary.size, None if head is None else head.weight.shape[1]
        yield checks.likely_text(address, nats, size, hidden, settled=not isinstance(known, str))


def _refused(found: Sequence[ProbeCheck]) -> bool:
    return any(check.result == "refused" for check in found)


def _not_checked(name: str, why: str, address: str | None = None) -> ProbeCheck:
    return ProbeCheck(name=name, result="not checked", found=why, address=address)
