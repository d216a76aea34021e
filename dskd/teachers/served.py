"""A teacher behind an address: a server that others run gives its outputs, and this process holds at most its head (docs/served-teachers.md)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.modeling.folders import ADAPTER_CONFIG, CONFIG
from dskd.modeling.head_alone import read_head
from dskd.modeling.lm_head import Head
from dskd.modeling.loading import load_config
from dskd.teachers.engines.base import Answers, TeacherEngine
from dskd.teachers.engines.served import open_served_engine
from dskd.teachers.engines.served_engine import ServedEngine
from dskd.teachers.options import ServedOptions, TeacherSource
from dskd.teachers.probe.probe import ExpectedTeacher, Probe
from dskd.teachers.probe.report import ProbeReport
from dskd.teachers.questions import Question, questions_of
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import Vocabulary


class ServedTeacher(Teacher):
    """Asks an engine for every batch, and goes on computing while it answers.

    Args:
        engine: What answers.
        vocabulary: The teacher's tokens, as far as its head predicts them.
        head, embedding: Where it gives hidden states.
        probe: What was found out about it before.
        ahead: Optimizer steps that it is asked about before theirs comes.
    """

    def __init__(
        self,
        engine: TeacherEngine,
        vocabulary: Vocabulary,
        head: Head | None = None,
        embedding: Tensor | None = None,
        *,
        probe: dict[str, Any] | None = None,
        ahead: int = 0,
    ) -> None:
        super().__init__()
        self.probe = probe
        self.vocabulary = vocabulary
        self.head, self.embedding = head, embedding
        self.ahead = ahead
        self._engine, self._before = engine, engine.figures()
        self._examples = self._tokens = 0

    @property
    def examples(self) -> int:
        return self._examples

    def request(self, batch: TokenBatch) -> None:
        if batch.teacher.requested is None:
            questions = questions_of(batch.teacher)
            self._examples += len(batch.teacher.sizes)
            self._tokens += sum(len(question.ids) - 1 for question in questions)
            batch.teacher.requested = self._engine.ask(questions)

    def figures(self) -> dict[str, Any]:
        """Of the engine, with the tokens that were asked about and the seconds in which a training did nothing but wait for it.

        What was asked before it was made, by the probe, is left out.
        """
        own = {name: value - self._before[name] for name, value in self._engine.figures().items()}
        return {"tokens": self._tokens, "wait_seconds": self.seconds, **own}

    def close(self) -> None:
        self._engine.close()

    def _fetch(self, side: SideTokens) -> SideTokens:
        device = side.labels.device
        with self._clock.running(torch.device("cpu")):
            future: Future[Answers] = side.requested
            given = {name: value.to(device, non_blocking=True) for name, value in future.result().items()}
        side = replace(side, requested=None)
        if self.head is not None:
            return replace(side, hidden=given["hidden"].to(self.head.weight.dtype))
        if "ids" in given:
            return replace(side, top_k_ids=given["ids"].long(), top_k_log_probabilities=given["log_probabilities"])
        return replace(side, label_log_probabilities=given["log_probabilities"])


def open_served_teacher(
    source: TeacherSource,
    vocabulary: Vocabulary,
    *,
    tokenizer: Any,
    dtype: str,
    device: Any,
    embedding: bool,
    longest: int | None = None,
    examples: Sequence[Question] = (),
) -> ServedTeacher:
    """Reach a served teacher and probe it, now and whenever an address was away.

    Args:
        source: Where it is, with `served`.
        vocabulary, tokenizer: Its whole tokenizer.
        dtype, device: Of its head.
        embedding: Whether its input embedding is needed, too.
        longest: Tokens of the longest example, where that is known.
        examples: Some of the training, for the probe.

    Raises:
        InputError: Where it is not the teacher that it should be.
        TrainingFailed: Where it cannot be reached.
    """
    assert source.served is not None
    head = table = None
    if source.served.kind == "hidden_states":
        head, table = read_head(source.folder, vocabulary, dtype=dtype, device=device, embedding=embedding)
        vocabulary = vocabulary.truncate_to_head(head.size, str(source.folder))
    else:
        vocabulary = _of_head(source.folder, vocabulary)
    expected = ExpectedTeacher(str(source.folder), tokenizer, vocabulary, head, longest, tuple(examples))
    engine, report = open_probed_engine(source.served, expected)
    return ServedTeacher(
        engine, vocabulary, head, table, probe=report.model_dump(mode="json"), ahead=source.served.ahead
    )


def open_probed_engine(served: ServedOptions, expected: ExpectedTeacher) -> tuple[ServedEngine, ProbeReport]:
    """Reach servers and probe them, now and whenever an address was away.

    Raises InputError where they are not the teacher that they are taken for, TrainingFailed where they cannot be reached.
    """
    engine = open_served_engine(served, expected.vocabulary.size)
    try:
        probe = Probe(engine, served, expected)
        engine.servers.on_reconnect = probe.again
        report = probe.run()
        report.require(expected.name)
    except BaseException:
        engine.close()
        raise
    return engine, report


def _of_head(folder: Path, vocabulary: Vocabulary) -> Vocabulary:
    """The tokens that a head of which the configuration alone is here predicts; all where a folder is that of a tokenizer alone."""
    if not any((folder / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
        return vocabulary
    return vocabulary.truncate_to_head(load_config(folder).get_text_config().vocab_size, str(folder))
