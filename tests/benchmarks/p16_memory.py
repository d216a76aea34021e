"""Bar P16: peak memory of a training whose teacher is cached or served, against supervised fine-tuning of the same student.

Each training has a process of its own, the same student and the same batches. Its peak is the resident memory above what the process
held before the training, libraries loaded; freed memory is given back to the system, so that it is memory in use. What is allowed
above `sft` is the teacher's head, the projectors with their gradients and Adam's two moments, and 5 % of the peak of `sft`. The loss
is taken in small chunks by all of them, so that a method's own logits, of which distillation has several, do not hide what the
teacher costs. A live teacher stands beside for comparison; on a GPU, so does the device's peak.

`--served` also starts a vLLM server of the teacher, in processes of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import report

METHODS = ("kd", "dskd-v2-eta")
BAR = 0.05


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/p16_memory.py --served --json P16.json")
    options.add_argument("--student", type=int, nargs=2, default=[512, 4], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--teacher", type=int, nargs=2, default=[640, 9], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--rows", type=int, default=6000, help="of the heads")
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--chunk-tokens", type=int, default=32)
    options.add_argument("--served", action="store_true", help="also with a served teacher; needs vLLM")
    options.add_argument("--folder", type=Path, help="for models and data, by default a temporary one")
    options.add_argument("--one", type=json.loads, help="a single training, in this process")
    chosen = options.parse_args()
    if chosen.one is not None:
        print(json.dumps(measured(**chosen.one)))
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        run(Path(folder), chosen)


def measured(folder: str, method: str, cache: str | None, address: str | None, **training: Any) -> dict[str, Any]:
    """Train, and say what memory that took above what the process held before."""
    import torch
    import transformers.trainer  # noqa: F401 - loaded before, not by the training

    from dskd.teachers.options import ServedOptions, TeacherSource
    from dskd.training import TrainingOptions, train
    from dskd.training.trainer import PROJECTORS

    place = Path(folder)
    source = TeacherSource(
        folder=place / "teacher",
        cache=Path(cache) if cache else None,
        served=ServedOptions(addresses=(address,), dtype="float32") if address else None,
    )
    with tempfile.TemporaryDirectory(dir=place) as output, report.PeakMemory() as memory:
        done = train(
            data=place / "data",
            student=place / "student",
            teacher_source=source,
            method=method,
            options=TrainingOptions(learning_rate=1e-4, **training),
            output=Path(output),
        )
        projectors = Path(output) / "model" / PROJECTORS
        size = projectors.stat().st_size if projectors.exists() else 0
    return {
        "peak": memory.peak,
        "device": done.peak_device_memory,
        "projectors": size,
        "threads": torch.get_num_threads(),
        "loss": done.losses["loss"],
    }


def run(folder: Path, chosen: Any) -> None:
    head = prepare(folder, chosen)
    training = {name: getattr(chosen, name) for name in ("steps", "batch_size", "chunk_tokens")}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with served(folder, chosen) as address:
        for method, teacher in [("sft", "none"), *itertools.product(METHODS, ("cached", "served", "live"))]:
            if teacher != "served" or address:
                cache = str(folder / "cache") if teacher == "cached" else None
                place = address if teacher == "served" else None
                found[method, teacher] = alone(
                    folder=str(folder), method=method, cache=cache, address=place, **training
                )
    sft = found["sft", "none"]
    rows, shares = [], {}
    for (method, teacher), side in found.items():
        allowed = 0 if method == "sft" else head + 4 * side["projectors"]
        above = side["peak"] - sft["peak"]
        if teacher in {"cached", "served"}:
            shares[f"{method} {teacher}"] = (above - allowed) / sft["peak"]
        rows.append(
            {
                "method": method,
                "teacher": teacher,
                "peak MB": round(side["peak"] / 1e6, 1),
                "above sft MB": round(above / 1e6, 1),
                "head and projectors MB": round(allowed / 1e6, 1),
                "beyond them, of sft": f"{(above - allowed) / sft['peak']:.1%}",
                "device MB": round(side["device"] / 1e6, 1) if side["device"] else "-",
                "loss": side["loss"],
            }
        )
    report.publish(
        "P16",
        rows,
        value=shares,
        bar=dict.fromkeys(shares, f"≤ {BAR} of the peak of sft beyond the head and the projectors"),
        holds=all(share <= BAR for share in shares.values()),
        shapes=f"teacher {chosen.teacher[0]} × {chosen.teacher[1]} layers, "
        f"{(folder / 'teacher' / 'model.safetensors').stat().st_size / 1e6:.0f} MB, head {head / 1e6:.1f} MB; "
        f"student {chosen.student[0]} × {chosen.student[1]}; {chosen.steps} steps of {chosen.batch_size} examples, chunks of {chosen.chunk_tokens} tokens",
        dtype="float32",
        file=chosen.json,
    )


def prepare(folder: Path, chosen: Any) -> int:
    """Write models, data and cache; returns the bytes of the teacher's head."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from dskd import TeacherCacheOptions, build_teacher_cache
    from dskd.data.preparation import prepare_dataset
    from dskd.modeling.loading import load_tokenizer
    from harness.smallworld import write_world

    write_world(folder / "world")
    tokenizer = load_tokenizer(folder / "world" / "tokenizers" / "bytelevel")
    lines = folder / "train.jsonl"
    with (folder / "world" / "train" / "student.jsonl").open(encoding="utf-8") as world:
        lines.write_text("".join(itertools.islice(world, chosen.steps * chosen.batch_size)), encoding="utf-8")
    for name, (hidden, layers) in {"student": chosen.student, "teacher": chosen.teacher}.items():
        torch.manual_seed(hidden)
        config = LlamaConfig(
            vocab_size=chosen.rows,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            max_position_embeddings=512,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    teacher = folder / "teacher"
    prepare_dataset(lines, folder / "teacher-data", student=teacher)
    prepare_dataset(lines, folder / "data", student=folder / "student", teacher=teacher)
    build_teacher_cache(teacher, folder / "teacher-data", folder / "cache", options=TeacherCacheOptions())
    return chosen.rows * chosen.teacher[0] * 4


@contextmanager
def served(folder: Path, chosen: Any) -> Iterator[str | None]:
    """The address of a server of the teacher, where one is asked for."""
    if not chosen.served:
        yield None
        return
    from helpers.vllm_servers import VllmServer, running

    server = VllmServer(folder / "teacher", folder / "server.log", arguments=["--max-model-len", "512"])
    with running(server):
        yield server.url


def alone(**training: Any) -> dict[str, Any]:
    """`measured` in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(training)]
    # What is freed goes back to the system at once: resident memory is memory in use, and not what an allocator keeps for later.
    freed = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | freed)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
