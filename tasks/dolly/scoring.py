"""Dolly: instructions answered freely, scored with Rouge-L. The card (README.md) has the protocol."""

from typing import Any

from harness.data_files import DataFile, HubRows
from harness.lm_eval_hooks import hooks
from harness.metrics.rouge import score_responses

DATA = DataFile(
    path="dskd_format/dolly/valid.jsonl",
    sha256="f2624572fdde0bec8759e63fecefdc5e38679816464cd57ef563612ccc6acc06",
    hub=HubRows(
        repository="MiniLLM/dolly",
        data_file="valid.jsonl",
        split="train",  # of the one file; it holds the test set
        fields=("prompt", "output"),
        rows_sha256="3119e7ad9c13349d5ab9bb862be333568c5806441f0244477c21f7d06efccb8d",
    ),
)


def documents() -> list[dict[str, Any]]:
    """Return the 500 rows of the test set, numbered from 0."""
    return [
        {"id": str(number), "prompt": row["prompt"], "output": row["output"]} for number, row in enumerate(DATA.rows())
    ]


def prompt(doc: dict[str, Any]) -> str:
    """Return the row's own prompt, which holds Alpaca's template."""
    return doc["prompt"]


def gold(doc: dict[str, Any]) -> str:
    """Return the reference."""
    return doc["output"]


score_many = score_responses
dataset, score_outputs, process_results = hooks("dolly")
