"""The small world's instructions, in Dolly's format and scored as Dolly is."""

from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.rouge import score_responses
from harness.smallworld import instruction_of, prompt_of, test_docs
from harness.tasks.lm_eval_hooks import hooks


def documents() -> list[dict[str, Any]]:
    """Return the test set of the small world, numbered from 0."""
    return [{"id": str(number), **doc} for number, doc in enumerate(test_docs("small_instruct"))]


def prompt(doc: dict[str, Any]) -> str:
    """Return the instruction, in the template that the small world's models are trained on."""
    return prompt_of("small_instruct", doc)


def instruction(doc: dict[str, Any]) -> Instruction:
    """Return what models with a template are asked, as the small world trains them."""
    return instruction_of("small_instruct", doc)


def gold(doc: dict[str, Any]) -> str:
    """Return the reference."""
    return doc["output"]


score_many = score_responses
dataset, score_outputs, process_results = hooks("small_instruct")
