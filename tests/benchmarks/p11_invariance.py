"""Bar P11: a step's loss and gradients, however its examples are split, ordered, padded, packed or spread over processes.

Every registered method takes the same step on small trained models in different ways; the table shows the largest difference to
one plain padded micro-batch. Differences of gradients are relative to the largest entry of each parameter's gradient.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import report
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from dskd import methods
from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.processes import safe_children
from dskd.teachers.live import LiveTeacher
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.training.distiller import Distiller
from dskd.training.run import TrainingOptions, train
from harness.smallworld.world import write_world

Step = tuple[float, dict[str, torch.Tensor]]
STUDENTS = {"same": "bytelevel", "any": "sentencepiece"}


def make_models(folder: Path) -> None:
    """A teacher and two students, a few steps of training each, so that every term of every method takes part."""
    write_world(folder / "world")
    lines = (folder / "world" / "train" / "student.jsonl").read_text().splitlines()[:64]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    for name, kind, hidden in (("teacher", "bytelevel", 64), ("same", "bytelevel", 48), ("any", "sentencepiece", 48)):
        tokenizer = AutoTokenizer.from_pretrained(folder / "world" / "tokenizers" / kind)
        torch.manual_seed(hidden)
        config = LlamaConfig(
            vocab_size=len(tokenizer) + 3,
            hidden_size=hidden,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder / f"{name}-start")
        tokenizer.save_pretrained(folder / f"{name}-start")
        start = folder / f"{name}-start"
        prepare_dataset(folder / "train.jsonl", folder / f"{name}-alone", student=start, max_length=160)
        options = TrainingOptions(steps=40, batch_size=16, learning_rate=5e-3)
        train(data=folder / f"{name}-alone", student=start, options=options, output=folder / f"{name}-run")
        (folder / f"{name}-run" / "model").rename(folder / name)
    for name in STUDENTS:
        data = folder / f"{name}-data"
        prepare_dataset(folder / "train.jsonl", data, student=folder / name, teacher=folder / "teacher", max_length=160)


def added_up(sums: torch.Tensor) -> torch.Tensor:
    """Over all processes."""
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums


def take_step(folder: Path, name: str, rows: Sequence[int], collator: Collator, parts: int, fused: bool = True) -> Step:
    """Loss and gradients of a step over these rows in `parts` micro-batches; of one process's share where there are several."""
    kind = methods.get(name)
    student = kind.requires.vocabulary
    tokenizers = [load_tokenizer(folder / which) for which in (student, "teacher")]
    vocabularies = [Vocabulary.from_tokenizer(tokenizer) for tokenizer in tokenizers]
    teacher = LiveTeacher(load_model(folder / "teacher"), vocabularies[1].size) if kind.requires.teacher else None
    torch.manual_seed(0)
    distiller = Distiller(
        load_model(folder / student),
        kind(),
        student_size=vocabularies[0].size,
        teacher=teacher,
        shared=share_vocabulary(vocabularies[1], vocabularies[0]),
        chunked=fused,
        chunk_tokens=50,
    )
    data = datasets.load_from_disk(str(folder / f"{student}-data"))
    size = len(rows) // parts
    distiller.method.on_step_begin(distiller.whole_student_head())
    chosen = [data[k] for k in rows]
    collator = replace(collator, by_position=kind.requires.pairing == "position")
    if kind.requires.on_policy == "always":  # half of them as if the student had written them
        chosen = [{**row, "sampled": k % 4 < 2} for k, row in zip(rows, chosen, strict=True)]
    batches = [distiller.fetch(collator(chosen[first : first + size])) for first in range(0, len(rows), size)]
    distiller.precompute_step(batches, added_up)
    counts = [distiller.counts(batch) for batch in batches]
    totals = {key: torch.stack([count[key] for count in counts]).sum() for key in counts[0]}
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world > 1:
        for total in totals.values():
            dist.all_reduce(total)
    model: Any = torch.nn.parallel.DistributedDataParallel(distiller) if world > 1 else distiller
    total = torch.zeros(())
    for batch in batches:
        loss, _ = model(batch, totals)
        (loss * world).backward()
        total += loss.detach()
    if world > 1:
        dist.all_reduce(total)
    gradients = {key: value.grad for key, value in distiller.named_parameters() if value.grad is not None}
    return total.item(), gradients


def one_of_two(rank: int, folder: str, rows: Sequence[int], port: int) -> None:
    """The step of every method in one of two processes."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {name: take_step(Path(folder), name, rows[rank::2], Collator(), 1) for name in methods.METHODS}
    if rank == 0:
        torch.save(found, Path(folder) / "two.pt")
    dist.destroy_process_group()


def difference(step: Step, plain: Step) -> tuple[float, float]:
    """(relative difference of the losses, the largest relative difference of a gradient)."""
    gradients = [
        ((step[1][key] - value).abs().max() / value.abs().max().clamp_min(1e-12)).item()
        for key, value in plain[1].items()
    ]
    return abs(step[0] - plain[0]) / abs(plain[0]), max(gradients)


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/p11_invariance.py --json P11.json")
    options.add_argument("--port", type=int, default=29_511, help="for the two processes")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_models(folder)
        rows = list(range(8))
        shuffled = [5, 2, 7, 0, 3, 6, 1, 4]
        ways: dict[str, tuple[Any, ...]] = {
            "not fused": (rows, Collator(), 1, False),
            "accumulation 2": (rows, Collator(), 2),
            "accumulation 4": (rows, Collator(), 4),
            "accumulation 8": (rows, Collator(), 8),
            "shuffled, accumulation 4": (shuffled, Collator(), 4),
            "padding on the left": (rows, Collator("left"), 1),
            "packed": (rows, Collator(packing=True), 1),
            "packed, shuffled, accumulation 2": (shuffled, Collator(packing=True), 2),
        }
        with safe_children():
            mp.spawn(one_of_two, (str(folder), rows, chosen.port), nprocs=2)
        two = torch.load(folder / "two.pt")
        table = []
        for method in methods.METHODS:
            plain = take_step(folder, method, rows, Collator(), 1)
            found = {way: difference(take_step(folder, method, *how), plain) for way, how in ways.items()}
            found["two processes"] = difference(two[method], plain)
            table += [
                {"method": method, "way": way, "loss": f"{loss:.1e}", "gradients": f"{gradients:.1e}"}
                for way, (loss, gradients) in found.items()
            ]
    value = {key: max(float(row[key]) for row in table) for key in ("loss", "gradients")}
    report.publish(
        "P11",
        table,
        value=value,
        bar={"loss": "≤ 1e-6, relative", "gradients": "≤ 1e-5, relative to each parameter's largest entry"},
        holds=value["loss"] <= 1e-6 and value["gradients"] <= 1e-5,
        shapes="8 examples; two layers, hidden 64 and 48, about 400 tokens of vocabulary; differences to one padded batch",
        dtype="float32",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
