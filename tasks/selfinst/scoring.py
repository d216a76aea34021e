"""Self-Instruct: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from typing import Any

from harness.metrics.rouge import score_responses
from harness.tasks.data_files import DataFile
from harness.tasks.instruction_following import documents_of, gold, instruction, prompt
from harness.tasks.lm_eval_hooks import hooks

DATA = DataFile(
    path="dskd_format/self-inst/valid.jsonl",
    sha256="18922e8ac8a6034ecf0ec8026e24473a30297aaa2e7182d6beb56682586af525",
    size=237036,
)


def documents() -> list[dict[str, Any]]:
    """Return the 242 rows, numbered from 0."""
    return documents_of(DATA)


__all__ = ["documents", "gold", "instruction", "prompt", "score_many"]
score_many = score_responses
dataset, score_outputs, process_results = hooks("selfinst")
