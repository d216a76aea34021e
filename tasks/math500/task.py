"""MATH-500: competition problems, scored by the final answer. The card (README.md) has the protocol."""

from collections.abc import Sequence

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.math_equivalence import score_final_answers
from harness.metrics.sample import Advance, SampleScore
from harness.tasks.data_files import DataFile, HubRows
from harness.tasks.task import Doc, Metric, Task

# MATH without the test set: the problems that are trained on where the 500 are the test. Never seen here, so unpinned.
_FIELDS = ("problem", "solution", "answer", "subject", "level")
_TRAIN = DataFile(
    path="math/train.jsonl",
    sha256=None,
    hub=HubRows(repository="nlile/hendrycks-MATH-benchmark", split="train", fields=_FIELDS, rows_sha256=None),
)
_EVERY = 24  # so 500 of 12,000, from all parts of the file, which may be in the order of subjects


class Math500(Task):
    name = "math500"
    version = "2"
    licence = "MIT"
    metrics = (Metric("equivalent"), Metric("math_verify"), Metric("exact_match"))
    max_new_tokens = 1024
    stop = ("Problem:", "</s>", "<|im_end|>")
    validation = "500 problems, every 24th of the training set"
    validation_data = _TRAIN
    answer_fields = ("answer", "solution")
    data = DataFile(
        path="math500/test.jsonl",
        sha256="35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
        size=446564,
        hub=HubRows(
            repository="HuggingFaceH4/MATH-500",
            configuration="default",
            split="test",
            fields=("problem", "solution", "answer", "subject", "level", "unique_id"),
            rows_sha256="e2a9f92a7aadc7e270406e018848b3ea20095478a9b49dc54eb5d52fa4e0e39b",
        ),
    )

    def documents(self) -> list[Doc]:
        """Return the rows of the test set, by their own names."""
        return [{"id": row["unique_id"], **row} for row in self.rows()]

    def validation_documents(self) -> list[Doc]:
        """Return rows of the training set, by their numbers there: train/0, train/24 and so on."""
        return [{"id": f"train/{n}", **row} for n, row in enumerate(_TRAIN.rows()) if n % _EVERY == 0]

    def prompt(self, doc: Doc) -> str:
        """Return lm-eval's prompt of hendrycks_math500, without examples."""
        return f"Problem: {doc['problem']}\nAnswer:"

    def instruction(self, doc: Doc) -> Instruction:
        """Return the problem, and how the answer is to be given so that it is found."""
        return Instruction(f"{doc['problem']}\n\nReason step by step, and put the final answer into \\boxed{{}}.")

    def reference(self, doc: Doc) -> str:
        """Return the final answer in the form that all three rules read."""
        return f" ${doc['answer']}$"

    def category(self, doc: Doc) -> str:
        """Return the subject, one of MATH's seven."""
        return str(doc["subject"])

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        """Score them with answers parsed in processes of their own (`harness.metrics.scoring_processes`)."""
        references, solutions = [doc["answer"] for doc in docs], [doc["solution"] for doc in docs]
        return score_final_answers(references, solutions, outputs, self.stop, advance)


TASK = Math500
