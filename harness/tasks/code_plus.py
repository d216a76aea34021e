"""Tasks of functions that are tested on the inputs of evalplus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.metrics.plus_tests import BASE, PLUS, score_plus
from harness.metrics.sample import Advance, SampleScore
from harness.tasks.code import CodeTask
from harness.tasks.task import Doc, Metric

# What evalplus ends a completion at (0.3.1, evalplus/provider/utility.py), for both data sets.
EVALPLUS_STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")


class PlusTask(CodeTask):
    """Python functions with evalplus' inputs; a document has what `harness.metrics.plus_tests.plus_program` needs."""

    version = "1"
    metrics = (Metric(PLUS), Metric(BASE))
    max_new_tokens = 768

    def documents(self) -> list[Doc]:
        """Return the problems, by their own names, with the prompt as evalplus gives it."""
        return [
            {
                **row,
                "id": row["task_id"],
                "prompt": row["prompt"].strip() + "\n",
                "solution": row["prompt"] + row["canonical_solution"],
                "oracle": self.oracle(row),
                "converters": self.converters(row),
            }
            for row in self.rows()
        ]

    def oracle(self, row: Mapping[str, Any]) -> str | None:
        """Return how the problem's values are compared, where not by equality (`harness.metrics.plus_checker`)."""
        return None

    def converters(self, row: Mapping[str, Any]) -> Sequence[str]:
        """Return what the problem's arguments stand for, where they are not what their JSON says."""
        return ()

    def prompt(self, doc: Doc) -> str:
        """Return the prompt, stripped and with one line end, as evalplus gives it."""
        return doc["prompt"]

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_plus(docs, outputs, self.stop, advance, self.form)
