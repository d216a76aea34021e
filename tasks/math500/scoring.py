"""MATH-500: competition problems, scored by the final answer. The card (README.md) has the protocol."""

from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.math_equivalence import score_final_answers
from harness.tasks.data_files import DataFile, HubRows
from harness.tasks.lm_eval_hooks import hooks

DATA = DataFile(
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


def documents() -> list[dict[str, Any]]:
    """Return the rows of the test set, by their own names."""
    return [{"id": row["unique_id"], **row} for row in DATA.rows()]


def prompt(doc: dict[str, Any]) -> str:
    """Return lm-eval's prompt of hendrycks_math500, without examples."""
    return f"Problem: {doc['problem']}\nAnswer:"


def instruction(doc: dict[str, Any]) -> Instruction:
    r"""Return the problem, and how the answer is to be given so that it is found."""
    return Instruction(f"{doc['problem']}\n\nReason step by step, and put the final answer into \\boxed{{}}.")


def gold(doc: dict[str, Any]) -> str:
    """Return the final answer in the form that both rules read."""
    return f" ${doc['answer']}$"


score_many = score_final_answers
dataset, score_outputs, process_results = hooks("math500")
