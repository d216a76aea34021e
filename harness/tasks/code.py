"""Tasks of functions that a model completes, scored by running their tests in the sandbox."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics.code import CodeFormat, score_completions
from harness.metrics.sample import Advance, SampleScore
from harness.tasks.task import Doc, Metric, Task


class CodeTask(Task):
    """Python functions, in HumanEval's format unless `form` says how else documents become programs."""

    version = "2"
    form = CodeFormat()
    metrics: tuple[Metric, ...] = (Metric("pass@1"),)
    runs_code = True
    max_new_tokens = 512
    stop = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

    def question(self, doc: Doc) -> str:
        """Return the function to complete."""
        return doc["prompt"]

    def reference(self, doc: Doc) -> str:
        return doc["canonical_solution"]

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_completions(docs, outputs, self.stop, advance, self.form)
