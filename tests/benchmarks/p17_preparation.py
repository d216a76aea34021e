"""Bar P17: examples prepared a second, against a plain loop over two tokenizers; memory of all processes; time per example by size.

The plain loop is one process that has read the examples and calls `tokenizer(prompt + output)` for each, with the teacher's and with the
student's tokenizer: no file is read or written, nothing is aligned, and where the response begins is not known. Preparation is
`prepare_dataset` in a process of its own, from the file to the finished folder, its workers' start included. Each size runs from nothing.

Without --tokenizers these are the small world's two. The examples are its word problems, numbered so that none comes twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import report

from dskd.data.preparation import prepare_dataset
from dskd.modeling.loading import load_tokenizer
from harness.smallworld import write_world

LOOPED = 5000  # examples of the plain loop, which is timed before and after
GIB = 2**30


def examples(world: Path) -> Iterator[dict[str, str]]:
    """The small world's problems over and over, each with its number."""
    lines = (world / "train" / "pretraining.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    number = 0
    while True:
        for row in rows:
            number += 1
            yield {"prompt": f"Problem {number}. {row['prompt']}", "output": row["output"]}


def loop(world: Path, tokenizers: list[Path]) -> tuple[float, float]:
    """(examples a second, microseconds of the processor an example) of the plain loop."""
    texts = [row["prompt"] + row["output"] for row in islice(examples(world), LOOPED)]
    loaded = [load_tokenizer(folder) for folder in tokenizers]
    start, start_cpu = time.perf_counter(), time.process_time()
    for text in texts:
        for tokenizer in loaded:
            tokenizer(text)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return len(texts) / seconds, 1e6 * cpu / len(texts)


def prepare(file: Path, output: Path, tokenizers: list[Path], workers: int) -> None:
    """In a process of its own: prepare, and print the seconds at which blocks were done."""
    seen: list[tuple[int, float]] = []
    start = time.perf_counter()
    prepare_dataset(
        file,
        output,
        teacher=tokenizers[0],
        student=tokenizers[1],
        workers=workers,
        progress=lambda done, total: seen.append((done, time.perf_counter() - start)),
    )
    seconds, used = time.perf_counter() - start, os.times()
    cpu = used.user + used.system + used.children_user + used.children_system
    print(json.dumps({"seconds": seconds, "seen": seen, "cpu": cpu}))


def measured(file: Path, output: Path, tokenizers: list[Path], workers: int) -> dict[str, Any]:
    """What `prepare` printed, and the largest sum of the resident memory of its process and all that it started."""
    command = [sys.executable, __file__, "--prepare", str(file), str(output), "--workers", str(workers)]
    process = subprocess.Popen([*command, "--tokenizers", *map(str, tokenizers)], stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(psutil.Process(process.pid)))
        time.sleep(0.05)
    assert process.stdout is not None
    if process.returncode:
        sys.exit(process.returncode)
    return {**json.loads(process.stdout.read()), "peak": peak}


def resident(process: psutil.Process) -> int:
    """Pages that processes share count for each of them."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:  # it has just ended
        return 0
    return total


def microseconds_later(run: dict[str, Any]) -> float:
    """Microseconds an example once the workers are running: from the first tenth of the examples to the last."""
    seen = run["seen"]
    first = next(moment for moment in seen if moment[0] >= seen[-1][0] / 10)
    return 1e6 * (seen[-1][1] - first[1]) / max(seen[-1][0] - first[0], 1)


def main() -> None:
    options = report.parser(__doc__, "python tests/benchmarks/p17_preparation.py --examples 20000 --json P17.json")
    options.add_argument(
        "--examples", type=int, default=1_000_000, help="of the largest size; a tenth is measured as well"
    )
    options.add_argument("--tokenizers", type=Path, nargs=2, metavar=("TEACHER", "STUDENT"), help="folders")
    options.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="by default as many as cores"
    )
    options.add_argument("--prepare", type=Path, nargs=2, help="for the benchmark itself")
    chosen = options.parse_args()
    if chosen.prepare is not None:
        prepare(*chosen.prepare, chosen.tokenizers, chosen.workers)
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world"
        write_world(world)
        tokenizers = chosen.tokenizers or [world / "tokenizers" / kind for kind in ("bytelevel", "sentencepiece")]
        before = loop(world, tokenizers)
        rows, runs = [], []
        for size in (max(chosen.examples // 10, 8000), chosen.examples):  # several blocks, at least
            file = Path(folder) / f"{size}.jsonl"
            with file.open("w") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in islice(examples(world), size))
            run = measured(file, Path(folder) / f"{size}", tokenizers, chosen.workers)
            runs.append(run)
            rows.append(
                {
                    "examples": size,
                    "MB of text": file.stat().st_size / 1e6,
                    "seconds": run["seconds"],
                    "examples/s": size / run["seconds"],
                    "µs an example, later": microseconds_later(run),
                    "CPU µs an example": 1e6 * run["cpu"] / size,
                    "peak memory of all, GiB": run["peak"] / GIB,
                }
            )
        after = loop(world, tokenizers)
    looped, cpu = ((one + other) / 2 for one, other in zip(before, after, strict=True))
    for row in rows:
        row |= {"plain loop, examples/s": looped, "its CPU µs": cpu, "ratio": row["examples/s"] / looped}
    value = {
        "loops": rows[-1]["ratio"] / chosen.workers,
        "peak_memory": runs[-1]["peak"] / GIB,
        "growth": microseconds_later(runs[-1]) / microseconds_later(runs[0]),
    }
    report.publish(
        "P17",
        rows,
        value=value,
        bar={
            "loops": "≥ 0.8 times the plain loop's examples a second, for each worker",
            "peak_memory": "≤ 2 GiB at 1,000,000 examples",
            "growth": "≤ 1.2 times the time an example of a tenth of the size",
        },
        holds=value["loops"] >= 0.8 and value["peak_memory"] <= 2 and value["growth"] <= 1.2,
        shapes=f"{chosen.examples:,} examples of the small world, {chosen.workers} workers",
        dtype="int32",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
