"""A folder of tasks for lm-eval, one of each kind that is scored by log-likelihoods, over a few made-up rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

CITIES = ["Lisbon", "Oslo", "Rome", "Bern", "Vienna", "Cairo", "Lima", "Quito", "Paris", "Delhi"]
LANDS = ["Portugal", "Norway", "Italy", "Switzerland", "Austria", "Egypt", "Peru", "Ecuador", "France", "India"]


def _rows() -> dict[str, list[dict[str, Any]]]:
    rows = []
    for n, (land, city) in enumerate(zip(LANDS, CITIES, strict=True)):
        others = [CITIES[(n + k) % 10] for k in (1, 4)]
        choices = [*others[: n % 3], city, *others[n % 3 :]]
        rows.append({"land": land, "city": city, "choices": choices, "gold": n % 3, "ok": [n % 3, (n + 1) % 3]})
    return {"test": rows[:7], "train": rows[7:]}


_ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
_BLANKS = """
def text(row):
    return row["gold"]


def choices(row):
    return [f"The capital of {row['land']} is {city}" for city in row["choices"]]


def target(row):
    return "as everybody knows"
"""
_TASKS: dict[str, dict[str, Any]] = {
    # One text before all choices, with examples; and the choices without it.
    "capitals": {
        "output_type": "multiple_choice",
        "description": "Capitals.\n\n",
        "num_fewshot": 2,
        "doc_to_text": "Which city is the capital of {{land}}?\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [{**_ACC, "metric": metric} for metric in ("acc", "acc_norm", "acc_mutual_info")],
    },
    # A letter is chosen, and lm-eval's own metrics are asked for.
    "letters": {
        "output_type": "multiple_choice",
        "doc_to_text": "The capital of {{land}}?\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nAnswer:",
        "doc_to_choice": ["A", "B", "C"],
        "doc_to_target": "gold",
    },
    # One of several targets is right, and choices follow without a space.
    "either": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{land}}: ",
        "doc_to_choice": "choices",
        "doc_to_target": "ok",
        "target_delimiter": "",
        "metric_list": [_ACC, {**_ACC, "metric": "exact_match"}],
    },
    # Each choice is a text of its own, and what follows is the same.
    "blanks": {
        "output_type": "multiple_choice",
        "doc_to_text": "!function blanks.text",
        "doc_to_choice": "!function blanks.choices",
        "doc_to_target": "!function blanks.target",
        "num_fewshot": 1,
        "metric_list": [_ACC],
    },
    # A word to be predicted; perplexity is over the whole corpus.
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "The capital of {{land}} is",
        "doc_to_target": " {{city}}",
        "metric_list": [{"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}, _ACC],
    },
}
TASKS = tuple(_TASKS)


def write_tasks(folder: Path) -> Path:
    """Write the tasks and their rows into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, rows in _rows().items():
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
    data |= {"training_split": "train", "fewshot_split": "train", "metadata": {"version": 1.5}}
    (folder / "blanks.py").write_text(_BLANKS, encoding="utf-8")
    for name, config in _TASKS.items():
        write_task(folder, name, {**data, **config})
    return folder


def write_task(folder: Path, name: str, config: dict[str, Any]) -> None:
    """Write one task; `!function` stands for a function."""
    dumped = yaml.safe_dump({"task": name, **config}, width=1000)
    text = re.sub(r"'(!function [\w.]+)'", r"\1", dumped)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
