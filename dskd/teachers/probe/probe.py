"""Runs the probe: before the first step of a training, and again for an address that was away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.errors import InputError, TrainingFailed
from dskd.modeling.lm_head import Head
from dskd.teachers.engines.base import Answers
from dskd.teachers.engines.served_engine import ServedEngine
from dskd.teachers.http import Away, model_names
from dskd.teachers.options import ServedOptions
from dskd.teachers.probe import checks, server
from dskd.teachers.probe.figures import split
from dskd.teachers.probe.reference import ReferenceAnswer, read_reference
from dskd.teachers.probe.report import ProbeCheck, ProbeReport
from dskd.teachers.probe.texts import FILLING, LENGTH, PLAIN, TEXTS, question_of
from dskd.teachers.questions import Question
from dskd.tokenization.vocabulary import Vocabulary

_AT_ONCE = 8  # requests, so that a server puts other texts beside a text than the first time


@dataclass(frozen=True)
class ExpectedTeacher:
    """What the servers are taken for.

    Attributes:
        name: How messages call it.
        tokenizer: Its tokenizer.
        vocabulary: Its tokens, as far as its head predicts them.
        head: Its head, where hidden states are asked for.
        longest: Tokens of the longest example; None where the data is not known.
        examples: Of the training, which it should find likely; none where they are not known.
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
        engine: What training asks, too.
        served: Its options.
        expected: What is behind it.
    """

    def __init__(self, engine: ServedEngine, served: ServedOptions, expected: ExpectedTeacher) -> None:
        self._engine, self._served, self._expected = engine, served, expected
        self._first: list[Answers] | None = None  # to the questions, of the first address
        self._questions: list[Question] = []
        self._texts: list[str] = []  # the questions, as messages show them
        self._checks: list[ProbeCheck] = []
        self._versions: dict[str, str | None] = {}

    def run(self, addresses: Sequence[str] | None = None) -> ProbeReport:
        """Ask everything, of all addresses by default. A check that is refused stands in the report and raises nothing.

        Raises:
            TrainingFailed: Where no address answers within the patience of the options.
            InputError: For a reference that is none.
        """
        start = time.perf_counter()
        self._checks, self._versions = [], {}
        if addresses is None:
            self._engine.servers.get("/v1/models", model_names).result()  # waits for servers that are still starting
        lengths = [self._facts(address) for address in addresses or self._engine.servers.addresses]
        here = list(self._versions)
        if not here:
            raise TrainingFailed(f"{self._expected.name}: {self._checks[-1].found}; fix: start the server again")
        if not self._refused():
            self._ask_all(here, min([LENGTH, *(length for length in lengths if length is not None)]))
        return ProbeReport(
            kind=self._served.kind,
            model=self._engine.model,
            versions=self._versions,
            checks=self._checks,
            seconds=time.perf_counter() - start,
        )

    def again(self, address: str) -> None:
        """Probe an address that was away: it has to be the teacher that the training began with.

        Raises:
            TrainingFailed: Where it is another.
            Away: Where it does not answer after all.
        """
        try:
            self.run([address]).require(self._expected.name)
        except InputError as error:
            raise TrainingFailed(f"{error}; the last checkpoint stays") from None
        except TrainingFailed as error:
            raise Away(str(error)) from None

    def _refused(self) -> bool:
        return any(check.result == "refused" for check in self._checks)

    def _facts(self, address: str) -> int | None:
        """Check what a server says of itself. Returns the most tokens of a text there."""
        servers, model, expected = self._engine.servers, self._engine.model, self._expected
        try:
            found, own = server.facts(servers, address, model, expected.longest)
            if all(check.result != "refused" for check in own):
                own.append(server.vocabulary(servers, address, model, expected.tokenizer, expected.vocabulary))
        except Away as error:
            self._checks.append(_not_checked("reachable", address, f"{error}; it is probed when it answers"))
            return None
        self._versions[address] = found.version
        self._checks += own
        return found.length

    def _ask_all(self, here: list[str], length: int) -> None:
        if not self._questions:
            size = self._expected.vocabulary.size
            asked = [(text, question_of(self._expected.tokenizer, text, length, size)) for text in TEXTS]
            self._questions = [question for _, question in asked if question is not None]
            self._texts = [repr(text[:24]) for text, question in asked if question is not None]
        alone, at_once = {}, {}
        with ThreadPoolExecutor(_AT_ONCE * len(here)) as threads:
            try:
                for address in here:
                    alone[address] = [self._engine.ask_at(address, [question]) for question in self._questions]
                    self._of_answers(address, alone[address])
                    if self._refused():
                        return
                others = [self._question(text) for text in FILLING]
                beside = [threads.submit(self._engine.ask_at, address, [other]) for other in others for address in here]
                futures = {
                    address: [threads.submit(self._engine.ask_at, address, [q]) for q in reversed(self._questions)]
                    for address in here
                }
                at_once = {address: [future.result() for future in reversed(own)] for address, own in futures.items()}
                for future in beside:
                    future.result()
            except (InputError, TrainingFailed) as error:
                found, _, fix = str(error).partition("; fix: ")
                self._checks.append(ProbeCheck(name="answers", result="refused", found=found, fix=fix))
                return
        self._compare(alone, at_once)
