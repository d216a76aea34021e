"""GSM8K with the eight examples of chain-of-thought prompting, as lm-eval's gsm8k_cot. The card (README.md) has the protocol."""

import re
from functools import partial
from typing import Any

from harness.metrics.numbers import CHAIN_OF_THOUGHT, score_numbers
from harness.tasks.gsm8k import TEST, chain_of_thought_examples, documents_of, instruction, prompt
from harness.tasks.lm_eval_hooks import hooks

DATA = TEST

_EXAMPLES_SHA256 = "543accc1395566cc76bfebc9337445e87998284d4a04c6b2053fb40f26ea1cf5"


def documents() -> list[dict[str, Any]]:
    """Return the 1,319 rows of the test set, numbered from 0, each with its prompt of eight examples."""
    return documents_of(chain_of_thought_examples(_EXAMPLES_SHA256), "Q: {question}\nA:")


def gold(doc: dict[str, Any]) -> str:
    """Return the worked answer in the form of the examples, without the data set's calculator marks."""
    steps, _, number = doc["answer"].rpartition("####")
    return f" {re.sub(r'<<.*?>>', '', steps).strip()} The answer is {number.strip()}."


__all__ = ["documents", "gold", "instruction", "prompt", "score_many"]
score_many = partial(score_numbers, ending=CHAIN_OF_THOUGHT)
dataset, score_outputs, process_results = hooks("gsm8k_cot_8shot")
