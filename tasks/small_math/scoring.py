"""The small world's word problems, in GSM8K's format and scored as GSM8K is."""

from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.numbers import score_numbers
from harness.smallworld import instruction_of, prompt_of, test_docs
from harness.tasks.lm_eval_hooks import hooks


def documents() -> list[dict[str, Any]]:
    """Return the test set of the small world, numbered from 0."""
    return [{"id": str(number), **doc} for number, doc in enumerate(test_docs("small_math"))]


def prompt(doc: dict[str, Any]) -> str:
    """Return the question, as the small world's models are trained on it."""
    return prompt_of("small_math", doc)


def instruction(doc: dict[str, Any]) -> Instruction:
    """Return what models with a template are asked, as the small world trains them."""
    return instruction_of("small_math", doc)


def question(doc: dict[str, Any]) -> str:
    """Return the question alone."""
    return doc["question"]


def gold(doc: dict[str, Any]) -> str:
    """Return the worked answer, as a model would write it after the prompt."""
    return f" {doc['answer']}"


score_many = score_numbers
dataset, score_outputs, process_results = hooks("small_math")
