"""Unnatural Instructions, 11+: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from typing import Any

from harness.metrics.rouge import score_responses
from harness.tasks.data_files import DataFile, HubRows
from harness.tasks.instruction_following import documents_of, gold, instruction, prompt
from harness.tasks.lm_eval_hooks import hooks

DATA = DataFile(
    path="uinst/valid.jsonl",
    sha256=None,  # never seen here
    hub=HubRows(
        repository="MiniLLM/uinst",
        data_file="11_/valid.jsonl",
        split="train",  # of the one file; it holds the test set
        fields=("prompt", "instruction", "input", "output"),
        rows_sha256=None,
    ),
)
_FIRST = 10_000  # of the file's rows: the published tables' set


def documents() -> list[dict[str, Any]]:
    """Return the first 10,000 rows, numbered from 0."""
    return documents_of(DATA)[:_FIRST]


__all__ = ["documents", "gold", "instruction", "prompt", "score_many"]
score_many = score_responses
dataset, score_outputs, process_results = hooks("uinst")
