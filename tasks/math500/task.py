"""MATH-500: competition problems, scored by the final answer. The card (README.md) has the protocol."""

from collections.abc import Sequence

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.math_equivalence import score_final_answer
from harness.metrics.sample import Advance, SampleScore, score_each
from harness.tasks.data_files import DataFile, HubRows
from harness.tasks.task import Doc, Metric, Task


class Math500(Task):
    name = "math500"
    version = "1"
    metrics = (Metric("equivalent"), Metric("exact_match"))
    max_new_tokens = 1024
    stop = ("Problem:", "</s>", "<|im_end|>")
    data = DataFile(
        path="math500/test.jsonl",
        sha256=None,  # never seen here
        hub=HubRows(
            repository="HuggingFaceH4/MATH-500",
            configuration="default",
            split="test",
            fields=("problem", "solution", "answer", "subject", "level", "unique_id"),
            rows_sha256=None,
        ),
    )

    def documents(self) -> list[Doc]:
        """Return the rows of the test set, by their own names."""
        return [{"id": row["unique_id"], **row} for row in self.rows()]

    def prompt(self, doc: Doc) -> str:
        """Return lm-eval's prompt of hendrycks_math500, without examples."""
        return f"Problem: {doc['problem']}\nAnswer:"

    def instruction(self, doc: Doc) -> Instruction:
        """Return the problem, and how the answer is to be given so that it is found."""
        return Instruction(f"{doc['problem']}\n\nReason step by step, and put the final answer into \\boxed{{}}.")

    def reference(self, doc: Doc) -> str:
        """Return the final answer in the form that both rules read."""
        return f" ${doc['answer']}$"

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_each(
            lambda doc, output: score_final_answer(doc["answer"], output, self.stop), docs, outputs, advance
        )


TASK = Math500
