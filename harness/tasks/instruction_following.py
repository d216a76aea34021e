"""Tasks of free answers: rows in the format of MiniLLM and DSKD, with `prompt`, `instruction`, `input`, `output`.

A row's `prompt` holds Alpaca's template; its `output` is the reference, or a list of references.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.rouge import score_responses
from harness.metrics.sample import Advance, SampleScore
from harness.tasks.data_files import Row
from harness.tasks.task import Doc, Metric, Task


class InstructionTask(Task):
    """Rouge-L against a row's references. A task of these has `name` and `data`."""

    version = "1"
    metrics = (Metric("rouge_l", kind="continuous"), Metric("exact_match"))
    max_new_tokens = 256
    stop = ("<|endoftext|>",)
    answer_fields = ("output",)

    def documents(self) -> list[Doc]:
        """Return the rows, numbered from 0. Rows without an input have an empty one."""
        return instruction_documents(self.rows())

    def prompt(self, doc: Doc) -> str:
        return doc["prompt"]

    def instruction(self, doc: Doc) -> Instruction:
        """Return the row's instruction and input; Alpaca's template makes the row's own prompt of them."""
        return Instruction(doc["instruction"], doc["input"])

    def reference(self, doc: Doc) -> str:
        """Return the reference, the first where there are several."""
        return _references(doc)[0]

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_responses([_references(doc) for doc in docs], outputs, self.stop, advance)


def instruction_documents(rows: Iterable[Row], file: str = "") -> list[Doc]:
    """Return the rows as documents, numbered from 0 after the name of their `file`. Rows without an input have an empty one."""
    keys = ("prompt", "instruction", "input", "output")
    with_input = ({"input": "", **row} for row in rows)
    return [{"id": f"{file}{number}", **{key: row[key] for key in keys}} for number, row in enumerate(with_input)]


def _references(doc: Mapping[str, Any]) -> Sequence[str]:
    return [doc["output"]] if isinstance(doc["output"], str) else doc["output"]
