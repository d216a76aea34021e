"""Bar P15: a training whose teacher a vLLM server holds, against the same training with the teacher in its own process.

Both have the same cores. Served: the server has one core and the training the other. Live: the training has both. Random Llamas on the
small world's text, the teacher of 20 million parameters or more, and a student whose step takes about as long as the server needs for
its batch. Bytes are all that both sides send, headers included, divided by all tokens that the teacher reads. The wait is what the
training does nothing in but wait for an answer; the first step, for which nothing can be asked ahead, is in it.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dskd.data.preparation import prepare_dataset
from dskd.modeling.loading import load_tokenizer
from dskd.teachers.options import ServedOptions, TeacherSource
from dskd.training.run import TrainingOptions, train
from harness.smallworld import write_world
from helpers.vllm_servers import VllmServer, running

METHOD = "dskd-v2"


def write_model(folder: Path, tokenizer: Any, hidden: int, layers: int) -> int:
    """A random model with heads of size 64; its number of parameters."""
    torch.manual_seed(hidden)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 64,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def train_side(folder: Path, output: Path, served: str | None, chosen: Any) -> dict[str, Any]:
    """Train in a process of its own, on one core where the teacher is served and on both where it is live."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    own = cores[1:] if served else cores
    arguments = [sys.executable, __file__, "--side", str(folder), str(output), "--steps", str(chosen.steps)]
    arguments += ["--batch", str(chosen.batch), *(["--address", served] if served else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(own))}
    done = subprocess.run(
        arguments, env=environment, preexec_fn=lambda: os.sched_setaffinity(0, own), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    found: dict[str, Any] = json.loads((output / "model" / "training_report.json").read_text())
    return found


def run_side(chosen: Any) -> None:
    """What such a process does."""
    folder, output = chosen.side
    served = None if chosen.address is None else ServedOptions(addresses=(chosen.address,), dtype="bfloat16")
    train(
        data=folder / "data",
        student=folder / "student",
        method=METHOD,
        options=TrainingOptions(steps=chosen.steps, batch_size=chosen.batch, learning_rate=1e-4),
        output=output,
        teacher_source=TeacherSource(folder=folder / "teacher", served=served),
    )


def main() -> None:
    options = report.parser(__doc__ or "", "PYTHONPATH=tests python tests/benchmarks/p15_served.py --json P15.json")
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--batch", type=int, default=16, help="examples")
    options.add_argument("--teacher", type=int, nargs=2, default=[512, 5], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--student", type=int, nargs=2, default=[384, 4], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--repeats", type=int, default=2)
    options.add_argument("--side", type=Path, nargs=2, help="internal: folder and output of one training")
    options.add_argument("--address", help="internal: of the server")
    chosen = options.parse_args()
    if chosen.side:
        run_side(chosen)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), chosen)


def measure(folder: Path, chosen: Any) -> None:
    write_world(folder / "world")
    with (folder / "world" / "train" / "student.jsonl").open(encoding="utf-8") as lines:
        examples = list(itertools.islice(lines, (chosen.steps + 1) * chosen.batch))  # one epoch has all steps
    (folder / "train.jsonl").write_text("".join(examples), encoding="utf-8")
    tokenizer = load_tokenizer(folder / "world" / "tokenizers" / "bytelevel")
    parameters = write_model(folder / "teacher", tokenizer, *chosen.teacher)
    write_model(folder / "student", tokenizer, *chosen.student)
    prepare_dataset(folder / "train.jsonl", folder / "data", student=folder / "student", teacher=folder / "teacher")
    cores = os.sched_getaffinity(0)
    server = VllmServer(folder / "teacher", folder / "server.log", arguments=("--disable-uvicorn-access-log",))
    rows: list[dict[str, Any]] = []
    os.sched_setaffinity(0, sorted(cores)[:1])  # its processes have what this one has now
    with running(server):
        os.sched_setaffinity(0, cores)
        for turn, side in itertools.product(range(chosen.repeats), ("live", "served")):
            url = server.url if side == "served" else None
            found = train_side(folder, folder / f"{side}-{turn}", url, chosen)
            served = found["served"] or {}
            rows.append(
                {
                    "teacher": side,
                    "seconds a step": found["train_seconds"] / chosen.steps,
                    "of these for the teacher": found["teacher_seconds"] / chosen.steps,
                    "share": found["teacher_seconds"] / found["train_seconds"],
                    "student tokens/s": found["tokens_per_second"],
                    "bytes a teacher token": served.get("bytes_per_token", ""),
                }
            )
    measured = [row for row in rows if row["teacher"] == "served"]
    limit = 2 * chosen.teacher[0] + 16
    value = {
        "bytes a token": max(row["bytes a teacher token"] for row in measured),
        "wait": min(row["share"] for row in measured),  # another's load may hold up either core
    }
    report.publish(
        "P15",
        rows,
        value=value,
        bar={"bytes a token": f"≤ 2·D + 16 = {limit}", "wait": "≤ 0.1 of the step"},
        holds=value["bytes a token"] <= limit and value["wait"] <= 0.1,
        shapes=f"{METHOD}, teacher {chosen.teacher[0]} × {chosen.teacher[1]} layers ({parameters / 1e6:.1f} M), student "
        f"{chosen.student[0]} × {chosen.student[1]}; {chosen.steps} steps of {chosen.batch} examples",
        dtype="float32, states in bfloat16",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
