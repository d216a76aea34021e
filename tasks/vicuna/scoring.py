"""Vicuna: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from typing import Any

from harness.metrics.rouge import score_responses
from harness.tasks.data_files import DataFile
from harness.tasks.instruction_following import documents_of, gold, instruction, prompt
from harness.tasks.lm_eval_hooks import hooks

DATA = DataFile(
    path="dskd_format/vicuna/valid.jsonl",
    sha256="04f5fabc7e2660a778ef86f7d2779f69a8f108b892074517566b7d714a269c3a",
    size=131846,
)


def documents() -> list[dict[str, Any]]:
    """Return the 80 rows, numbered from 0."""
    return documents_of(DATA)


__all__ = ["documents", "gold", "instruction", "prompt", "score_many"]
score_many = score_responses
dataset, score_outputs, process_results = hooks("vicuna")
