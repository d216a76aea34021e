"""Makes the models and texts of a baseline of fixed models, from the small world: a teacher and two students, trained for a minute.

They are made once and committed. Another machine would train other weights, so a check never makes them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dskd.errors import InputError
from dskd.from_python.distill import distill
from dskd.io import write_atomic
from dskd.modeling.loading import load_tokenizer
from harness import tasks
from harness.regression.fixed.completions import StoredCompletion, made_up, write_completions
from harness.regression.fixed.folder import CROSS, MODELS, SAME, TEACHER, FixedFolder
from harness.regression.fixed.outputs import complete
from harness.smallworld.world import write_world

EXAMPLES = 24  # of which a step takes eight
SCORED = 6  # outputs of each model on each task that are stored to be scored
_TOKENIZERS = {TEACHER: "bytelevel", SAME: "bytelevel", CROSS: "sentencepiece"}
_HIDDEN = {TEACHER: 48, SAME: 32, CROSS: 32}
_STEPS = {TEACHER: 1200, SAME: 500, CROSS: 500}
_SETS = {TEACHER: "teacher", SAME: "student", CROSS: "student"}
_SEED = 1


def make_models(path: Path, told: Callable[[str], None] = lambda _: None) -> None:
    """Write models, examples and completions into a new folder; no baseline.

    Args:
        path: The folder, which must be empty or absent.
        told: Called with a line as each part is done.

    Raises:
        InputError: If the folder is not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: is not empty; fix: name a new folder, for models that change have another baseline")
    folder = FixedFolder(path)
    with tempfile.TemporaryDirectory(prefix="fixed-models-") as scratch:
        world = Path(scratch)
        write_world(world)
        for name in MODELS:
            _train(name, world, folder.model(name))
            told(f"{folder.model(name)}: trained")
        lines = (world / "train" / "student.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{key: row[key] for key in ("prompt", "output")} for row in map(json.loads, lines[:EXAMPLES])]
    write_atomic(folder.examples, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    told(f"{folder.examples}: {EXAMPLES} examples")
    completions = [*made_up(), *_outputs(folder)]
    write_completions(folder.completions, completions)
    told(f"{folder.completions}: {len(completions)} completions")


def _outputs(folder: FixedFolder) -> Iterator[StoredCompletion]:
    """Completions that two of the models generate for the first items of each task."""
    for cell, completions in complete(folder, (TEACHER, SAME)):
        name, task = cell.split("/")
        for doc in tasks.load(task).docs(SCORED):
            yield StoredCompletion(id=f"{doc['id']}/{name}", task=task, doc=doc, output=completions[doc["id"]].text)


def _train(name: str, world: Path, output: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(world / "tokenizers" / _TOKENIZERS[name])
    hidden = _HIDDEN[name]
    special = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.06,
        **special,
    )
    torch.manual_seed(_SEED)
    trained = distill(
        student=(LlamaForCausalLM(config), tokenizer),
        dataset=world / "train" / f"{_SETS[name]}.jsonl",
        method="sft",
        seed=_SEED,
        progress=False,
        steps=_STEPS[name],
        batch_size=16,
        learning_rate=4e-3,
        warmup_steps=30,
        max_length=128,
        packing=False,
    )
    # Half the room; a check computes in float32 all the same.
    trained.student.model.half().save_pretrained(output)
    trained.student.tokenizer.save_pretrained(output)
