"""GSM8K with five fixed examples, as lm-eval's gsm8k shows them. The card (README.md) has the protocol."""

from typing import Any

from harness.metrics.numbers import score_numbers
from harness.tasks.gsm8k import TEST, TRAIN, documents_of, instruction, prompt, training_examples
from harness.tasks.lm_eval_hooks import hooks

DATA = TEST
EXAMPLES = TRAIN

_IDS = (0, 1, 2, 3, 4)
_IDS_SHA256 = "8d8c57951fe32d0a06143553eba1509658b66ca68261ca2ad92dc8723bed2a3c"


def documents() -> list[dict[str, Any]]:
    """Return the 1,319 rows of the test set, numbered from 0, each with its prompt of five examples."""
    return documents_of(training_examples(_IDS, _IDS_SHA256))


def gold(doc: dict[str, Any]) -> str:
    """Return the worked answer, as a model would write it after the prompt."""
    return f" {doc['answer']}"


__all__ = ["documents", "gold", "instruction", "prompt", "score_many"]
score_many = score_numbers
dataset, score_outputs, process_results = hooks("gsm8k_5shot")
