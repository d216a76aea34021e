"""The small world's functions, in HumanEval's format and scored as HumanEval is."""

from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.code import score_completions
from harness.smallworld import instruction_of, prompt_of, test_docs
from harness.tasks.lm_eval_hooks import hooks


def documents() -> list[dict[str, Any]]:
    """Return the test set of the small world, by its own names."""
    return [{"id": doc["task_id"], **doc} for doc in test_docs("small_code")]


def prompt(doc: dict[str, Any]) -> str:
    """Return the function's signature and docstring."""
    return prompt_of("small_code", doc)


def instruction(doc: dict[str, Any]) -> Instruction:
    """Return what models with a template are asked, as the small world trains them."""
    return instruction_of("small_code", doc)


def question(doc: dict[str, Any]) -> str:
    """Return the function to go on with alone."""
    return doc["prompt"]


def gold(doc: dict[str, Any]) -> str:
    """Return the canonical solution."""
    return doc["canonical_solution"]


score_many = score_completions
dataset, score_outputs, process_results = hooks("small_code")
