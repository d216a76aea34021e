"""Writes the small world with a pair of models, for `harness init-example`."""

from __future__ import annotations

import json
from pathlib import Path

from dskd.errors import InputError
from harness.config.matrix_file import find_matrix, read_matrix
from harness.config.sources import NewModel
from harness.smallworld.world import write_world
from harness.steps.create_model import new_model

# The pair of the matrix `quick` with tokenizers of two kinds, and the folders of these tokenizers.
MODELS = {"teacher": ("small-teacher", "bytelevel"), "student": ("small-student-sentencepiece", "sentencepiece")}


def write_example(folder: Path, seed: int = 1) -> None:
    """Write models, training sets and a corpus into a new folder. InputError if the folder is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: already exists; fix: name a new folder")
    models = read_matrix(find_matrix("quick"), {}).models
    write_world(folder)
    for name, (model, tokenizer) in MODELS.items():
        recipe = models[model]
        assert isinstance(recipe, NewModel)
        new_model(recipe.config, folder / "tokenizers" / tokenizer, seed, folder / "models" / name)
    lines = (folder / "train" / "student.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [{"text": row["prompt"] + row["output"]} for row in map(json.loads, lines)]
    corpus = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    (folder / "corpus.jsonl").write_text(corpus, encoding="utf-8")
