"""What a task is: documents, prompts and scores, in one class.

Every way to a score leads through `Task.score_many`: the evaluation, `harness score`, and lm-eval for people who run our tasks
in it (`harness.tasks.lm_eval_export`). docs/tasks.md says how to add a task.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Instruction, prompt_text, template_of
from harness.metrics.sample import Advance, SampleScore
from harness.protocols import DecodingProtocol
from harness.sandbox import sandbox
from harness.tasks.data_files import DataFile, Row

Doc = dict[str, Any]
OverSamples = Literal["avg", "maj", "pass"]


@dataclass(frozen=True)
class Metric:
    """One metric of a task. "binary" metrics are 0 or 100 on each output, "continuous" ones anything between."""

    name: str
    higher_is_better: bool = True
    kind: Literal["binary", "continuous"] = "binary"


class Task(ABC):
    """One task; a subclass is a task.

    Attributes:
        version: Raised whenever a prompt or a score changes.
        metrics: The headline metric first.
        stop: A completion ends at the earliest of these strings.
        runs_code: Whether scoring runs what the model wrote.
        data: The file of the documents; None where they are generated.
        examples: The file of the examples in the prompts, where that is another.
        licence: Of the data, in a few words; the card says more.
        validation: Which rows `validation_documents` has and how many, in a few words; None where the data has none to choose settings by.
        validation_data: The file of those rows, where that is another.
        validation_from: The task by whose validation documents settings are chosen, where this has none.
        answer_fields: What of a document its score is read from; a row of a training set that has these can be scored as well.
        over_samples: What is said of several samples of each problem: "avg", "maj" and "pass" become `avg@k`, `maj@k`, `pass@k`.
        own_code: The sha256 of the task's file, where it does not ship.
    """

    name: str
    version: str
    metrics: tuple[Metric, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    runs_code: bool = False
    data: DataFile | None = None
    examples: DataFile | None = None
    licence: str = "not said"
    validation: str | None = None
    validation_data: DataFile | None = None
    validation_from: str | None = None
    answer_fields: tuple[str, ...] = ()
    over_samples: tuple[OverSamples, ...] = ()
    own_code: str | None = None

    @abstractmethod
    def documents(self) -> list[Doc]:
        """Return all documents in the data set's order.

        Each has "id": the data set's own (HumanEval/0) or, where it has none, the row number in its file from 0, as a string.
        """

    @abstractmethod
    def prompt(self, doc: Doc) -> str:
        """Return the text that a model without template is given."""

    @abstractmethod
    def reference(self, doc: Doc) -> str:
        """Return an output, as a model would write it after the prompt, that scores 100."""

    @abstractmethod
    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        """Return the score of each document's output, in order. Calls `advance` after each."""

    def instruction(self, doc: Doc) -> Instruction:
        """Return what a model with a template is asked. InputError where the task has only prompts of its own."""
        raise InputError(
            f"task {self.name}: it has no instructions, only prompts of its own; fix: evaluate a model without template"
        )

    def training_document(self, row: Row) -> Doc | None:
        """Return the document that a row of a training set is, to score what a model wrote for it; None where it says no answer.

        A row is in the data set's own form: GSM8K's training rows are documents of `gsm8k`.
        """
        known = all(row.get(name) not in (None, "", []) for name in self.answer_fields)
        return {"id": "", **row} if self.answer_fields and known else None

    @property
    def scores_training_rows(self) -> bool:
        """Whether it can tell right from wrong for rows of a training set."""
        return bool(self.answer_fields) or type(self).training_document is not Task.training_document

    def is_right(self, score: SampleScore) -> bool:
        """Whether an output is right: it has the best value of the headline metric, 100, or 0 where lower is better."""
        headline = self.metrics[0]
        return score.scores[headline.name] == (100.0 if headline.higher_is_better else 0.0)

    def category(self, doc: Doc) -> str | None:
        """Return the part of the data set that a document belongs to (BBH's tasks, MATH's subjects), each with a score of its own."""
        return None

    def answer_key(self, extracted: str) -> Hashable:
        """Return what two extracted answers have in common that are votes for the same one (`maj@k`)."""
        return extracted

    def validation_documents(self) -> list[Doc]:
        """Return the documents that settings may be chosen by, none of them in the test set; where `validation` says what they are."""
        raise NotImplementedError(f"task {self.name} has no validation documents")

    @property
    def has_validation(self) -> bool:
        """Whether there are validation documents."""
        return type(self).validation_documents is not Task.validation_documents

    def for_validation(self) -> Self:
        """Return the task with its validation documents in place of the test set."""
        chosen = copy.copy(self)
        chosen.documents = chosen.validation_documents  # type: ignore[method-assign]
        if chosen.validation_data is not None:
            chosen.data = chosen.validation_data
        chosen.__dict__.pop("_documents", None)
        return chosen

    @property
    def choose_by(self) -> str:
        """What to do where validation documents are asked for and there are none; ends an error."""
        name = self.validation_from
        return (
            "name a task that has some" if name is None else f"name {name}, whose validation items stand in for its own"
        )

    def question(self, doc: Doc) -> str:
        """Return the item's own text, without what the task puts around each; it is searched for in training data."""
        return "\n".join(self.instruction(doc)) if self.supports_chat else self.prompt(doc)

    def item(self, doc: Doc) -> str | None:
        """Return a name of the item that other tasks with the same item have too, where they ask it in other words; None for none."""
        return None

    @property
    def supports_chat(self) -> bool:
        """Whether models with a template can be evaluated."""
        return type(self).instruction is not Task.instruction

    def render_prompt(self, doc: Doc, tokenizer: Any) -> str:
        """Return the text that the tokenizer's model is given: the task's own prompt, or its instruction in a template."""
        return prompt_text(tokenizer, self.instruction(doc) if template_of(tokenizer) else self.prompt(doc))

    def as_chat(self) -> Self:
        """Return the task for models with a template: they end their text themselves, so no string does."""
        chat = copy.copy(self)
        chat.stop = ()
        return chat

    def docs(self, limit: int | None = None) -> list[Doc]:
        """Return the first `limit` documents, or all. InputError where the data is absent, or not the task's."""
        folder = os.environ.get("HARNESS_DATA")
        if folder not in self._documents:
            self._documents[folder] = self.documents()
        return self._documents[folder][:limit]

    @cached_property
    def _documents(self) -> dict[str | None, list[Doc]]:
        return {}  # by the folder of the data: another one may hold none

    def rows(self) -> list[Row]:
        """Return the rows of the task's data. InputError where they are absent, or others."""
        assert self.data is not None
        return self.data.rows()

    @property
    def data_files(self) -> list[DataFile]:
        """The files of its documents and of the examples in its prompts; none where the documents are generated."""
        return list(dict.fromkeys(data for data in (self.data, self.examples) if data is not None))

    @property
    def data_is_here(self) -> bool:
        """Whether the documents can be read without asking the hub; generated ones always can."""
        return all(data.is_here() for data in self.data_files)

    def identity(self) -> dict[str, Any]:
        """Return what belongs to an evaluation's identity besides the task's name and version.

        That is the hash of the code of a task of one's own, and the hash of the documents where no hash pins their data
        (`DataFile.sha256` is None): null where they are not here, and nothing can be evaluated.
        """
        parts: dict[str, Any] = {} if self.own_code is None else {"task_code": self.own_code}
        if any(data.sha256 is None for data in self.data_files):
            can_be_read = self.data_is_here or os.environ.get("HARNESS_HUB") == "1"
            parts["documents"] = documents_digest(self.docs()) if can_be_read else None
        return parts

    def check_protocol(self, protocol: DecodingProtocol) -> None:  # noqa: B027 - most tasks refuse none
        """InputError for a protocol that the task cannot be evaluated under; one whose completions are scored takes any."""

    def require_completions(self) -> None:  # noqa: B027 - most tasks have them
        """InputError where a task is not scored by completions, so that there are none to generate or to score."""

    def check_permission(self, allow_code_execution: bool) -> None:
        """InputError if the task runs generated code and that was not allowed, or nothing isolates such code here."""
        if self.runs_code and not allow_code_execution:
            raise InputError(
                f"task {self.name}: it runs the code that a model wrote, on this machine; fix: pass --allow-code-execution if "
                "you accept that"
            )
        if self.runs_code:
            sandbox()

    def score(self, doc: Doc, output: str, *, allow_code_execution: bool = False) -> SampleScore:
        """Return the score of one output; as `score_many`."""
        return self.score_many([doc], [output], allow_code_execution=allow_code_execution)[0]

    def score_many(
        self,
        docs: Sequence[Doc],
        outputs: Sequence[str],
        *,
        allow_code_execution: bool = False,
        advance: Advance | None = None,
    ) -> list[SampleScore]:
        """Return the scores of many outputs, one for each, in their order; `advance` is called after each.

        Raises:
            InputError: The task runs code and that was not allowed.
            ValueError: There are not as many documents as outputs.
        """
        self.check_permission(allow_code_execution)
        if len(docs) != len(outputs):
            raise ValueError(f"{len(outputs)} outputs for {len(docs)} documents")
        return self.score_outputs(docs, outputs, advance or (lambda: None))


def documents_digest(docs: Sequence[Doc]) -> str:
    """Return the sha256 of documents: everything that prompts and scores are made of."""
    digest = hashlib.sha256()
    for doc in docs:
        digest.update(json.dumps(doc, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()
