"""A pair of models to practise on, with text to train them: the small world as files of one's own."""

from __future__ import annotations

import json
from pathlib import Path

from dskd.errors import InputError
from harness.smallworld.world import write_world

# The pair of the matrix `quick` whose tokenizers are of two kinds, and the folders of the world's tokenizers.
MODELS = {"teacher": ("small-teacher", "bytelevel"), "student": ("small-student-sentencepiece", "sentencepiece")}


def write_practice(folder: Path, seed: int = 1) -> None:
    """Write into a new folder what `harness practice` promises. InputError where something stands there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; fix: name a new folder")
    from harness.config.matrix import NewModel
    from harness.config.matrix_file import find_matrix, read_matrix
    from harness.steps.base_model import new_model

    known = read_matrix(find_matrix("quick"), {}).models
    write_world(folder)
    for name, (model, tokenizer) in MODELS.items():
        recipe = known[model]
        assert isinstance(recipe, NewModel)
        new_model(recipe.config, folder / "tokenizers" / tokenizer, seed, folder / "models" / name)
    lines = (folder / "train" / "student.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [{"text": row["prompt"] + row["output"]} for row in map(json.loads, lines)]
    corpus = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    (folder / "corpus.jsonl").write_text(corpus, encoding="utf-8")
