"""Self-Instruct: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from typing import Any

from harness.data_files import DataFile
from harness.instruction_tasks import documents_of, gold, instruction, prompt
from harness.lm_eval_hooks import hooks
from harness.metrics.rouge import score_responses

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
