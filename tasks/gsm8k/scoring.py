"""GSM8K: school mathematics in words, scored by the final number. The card (README.md) has the protocol."""

from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.numbers import score_numbers
from harness.tasks.gsm8k import TEST, documents_of
from harness.tasks.lm_eval_hooks import hooks

DATA = TEST


def documents() -> list[dict[str, Any]]:
    """Return the 1,319 rows of the test set, numbered from 0."""
    return documents_of()


def prompt(doc: dict[str, Any]) -> str:
    """Return lm-eval's prompt, without examples."""
    return f"Question: {doc['question']}\nAnswer:"


def instruction(doc: dict[str, Any]) -> Instruction:
    """Return the question, and how the answer is to end so that both rules find the number."""
    return Instruction(f"{doc['question']}\nThink step by step, and end with the number after ####.")


def question(doc: dict[str, Any]) -> str:
    """Return the question alone."""
    return doc["question"]


def gold(doc: dict[str, Any]) -> str:
    """Return the worked answer, as a model would write it after the prompt."""
    return f" {doc['answer']}"


score_many = score_numbers
dataset, score_outputs, process_results = hooks("gsm8k")
