"""MBPP: Python functions from a sentence and three assertions, scored by running those. The card (README.md) has the protocol."""

from functools import partial
from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.assertions import program
from harness.metrics.code import score_completions
from harness.tasks.data_files import DataFile
from harness.tasks.lm_eval_hooks import hooks

DATA = DataFile(
    path="mbpp/mbpp.jsonl", sha256="ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f", size=563743
)

_EXAMPLES = (2, 3, 4)
_TEST_SET = range(11, 511)


def documents() -> list[dict[str, Any]]:
    """Return the 500 problems of the test set, by their numbers, each with its prompt of three examples."""
    rows = {row["task_id"]: row for row in DATA.rows()}
    examples = "".join(f"{_problem(rows[number])}\n[BEGIN]\n{rows[number]['code']}\n[DONE]\n\n" for number in _EXAMPLES)
    return [
        {"id": str(number), "prompt": f"{examples}{_problem(rows[number])}\n[BEGIN]\n", **rows[number]}
        for number in _TEST_SET
    ]


def prompt(doc: dict[str, Any]) -> str:
    """Return the three examples and the problem, as the paper and lm-eval give them."""
    return doc["prompt"]


def instruction(doc: dict[str, Any]) -> Instruction:
    """Return the problem without examples, and how the code is to be given."""
    return Instruction(f"{_problem(doc)}\n\nAnswer with the code in a code block.")


def question(doc: dict[str, Any]) -> str:
    """Return the problem in words alone."""
    return doc["text"]


def gold(doc: dict[str, Any]) -> str:
    """Return the reference solution."""
    return doc["code"]


def _problem(row: dict[str, Any]) -> str:
    task = (
        f"You are an expert Python programmer, and here is your task: {row['text']} Your code should pass these tests:"
    )
    return "\n".join([task, "", *row["test_list"]])


score_many = partial(score_completions, program_of=program)
dataset, score_outputs, process_results = hooks("mbpp")
