"""IFEval: instructions that a program can check. The card (README.md) has the protocol."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.instruction_answers import following_answer
from harness.metrics.instructions import checks_digest, score_answers
from harness.metrics.punkt import require_punkt
from harness.metrics.sample import Advance, SampleScore
from harness.tasks.data_files import DataFile
from harness.tasks.task import Doc, Metric, Task


class Ifeval(Task):
    name = "ifeval"
    version = "1"
    metrics = (
        Metric("prompt_strict"),
        Metric("prompt_loose"),
        Metric("inst_strict", kind="continuous"),
        Metric("inst_loose", kind="continuous"),
    )
    max_new_tokens = 1280
    licence = "CC-BY-4.0 or Apache-2.0"
    data = DataFile(
        path="ifeval/input_data.jsonl",
        sha256="67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49",
        size=207111,
    )

    def documents(self) -> list[Doc]:
        """Return the 541 prompts, by their keys. InputError also where nltk lacks what the checks need: before anything is generated."""
        require_punkt()
        return [{"id": str(row["key"]), **row} for row in self.rows()]

    def identity(self) -> dict[str, Any]:
        """Return what the verdicts come from besides this version: lm-eval's checks, and the two libraries under them."""
        versions = {package: importlib.metadata.version(package) for package in ("langdetect", "nltk")}
        return {**super().identity(), "checks": checks_digest(), **versions}

    def prompt(self, doc: Doc) -> str:
        return doc["prompt"]

    def instruction(self, doc: Doc) -> Instruction:
        return Instruction(doc["prompt"])

    def question(self, doc: Doc) -> str:
        return doc["prompt"]

    def reference(self, doc: Doc) -> str:
        """Return an answer made up to follow the instructions; the data set has none."""
        return following_answer(doc["instruction_id_list"], doc["kwargs"])

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_answers(docs, outputs, advance)


TASK = Ifeval
