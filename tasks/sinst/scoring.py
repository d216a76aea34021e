"""Super-NaturalInstructions, 11+: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from typing import Any

from harness.metrics.rouge import score_responses
from harness.tasks.data_files import DataFile
from harness.tasks.instruction_following import documents_of, gold, instruction, prompt
from harness.tasks.lm_eval_hooks import hooks

DATA = DataFile(
    path="dskd_format/sinst/11_/valid.jsonl",
    sha256="8c62f31543f02f3dc44ceb62436ec633ab7add9a94307a7dd1977f90378576a6",
    size=2259371,
)


def documents() -> list[dict[str, Any]]:
    """Return the 1,694 rows, numbered from 0."""
    return documents_of(DATA)


__all__ = ["documents", "gold", "instruction", "prompt", "score_many"]
score_many = score_responses
dataset, score_outputs, process_results = hooks("sinst")
