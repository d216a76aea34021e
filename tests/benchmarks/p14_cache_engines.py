"""Bar P14: hidden states of a teacher by vLLM against transformers, on the same rows in the same batches, as a teacher cache asks.

Both engines are loaded at once and take turns. What vLLM needs to start is told beside the speed and is no part of it. On a CPU the
processor's seconds are compared, of all processes of a side: on a busy machine vLLM's process gets another share than this one.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import report
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from dskd.modeling.loading import load_model
from dskd.teachers.engines.base import TeacherEngine
from dskd.teachers.engines.transformers import TransformersEngine
from dskd.teachers.engines.vllm import VllmEngine
from dskd.teachers.questions import Question, in_batches

AHEAD = {"transformers": 1, "vllm": 4}  # batches that are asked at a time


def run(engine: TeacherEngine, questions: list[Question], batch_tokens: int, ahead: int) -> torch.Tensor:
    """The states of all questions [positions, hidden], the longest question first."""
    found, waiting = [], deque[Any]()
    for batch in in_batches([len(question.ids) for question in questions], batch_tokens):
        waiting.append(engine.ask([questions[k] for k in batch]))
        if len(waiting) >= ahead:
            found.append(waiting.popleft().result()["hidden"])
    found.extend(future.result()["hidden"] for future in waiting)
    return torch.cat(found)


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/p14_cache_engines.py --device cuda --rows 4096")
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options.add_argument("--teacher", type=int, nargs=2, default=[512, 8], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--vocabulary", type=int, default=32_000)
    options.add_argument("--rows", type=int, default=48)
    options.add_argument("--lengths", type=int, nargs=2, default=[32, 384], metavar=("SHORTEST", "LONGEST"))
    options.add_argument("--batch-tokens", type=int, default=8192)
    options.add_argument(
        "--gpu-memory", type=float, default=0.5, help="share of a GPU for vLLM; the rest is transformers'"
    )
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    random = np.random.default_rng(0)
    questions = []
    for length in random.integers(*chosen.lengths, size=chosen.rows, endpoint=True):
        ids = random.integers(0, chosen.vocabulary, size=length).tolist()
        questions.append(Question(ids, np.arange(length // 4, length - 1)))  # a quarter is a prompt
    tokens = sum(len(question.ids) for question in questions)
    rows: list[dict[str, Any]] = []
    value: dict[str, float] = {}
    exact: dict[str, Any] = {}  # of transformers in the first dtype
    with tempfile.TemporaryDirectory() as folder:
        size = write_teacher(Path(folder), *chosen.teacher, chosen.vocabulary)
        for dtype in chosen.dtypes:
            rows += compare(Path(folder), questions, dtype, chosen, exact)
            slow, fast = (row["seconds" if chosen.device != "cpu" else "CPU seconds"] for row in rows[-2:])
            value[f"ratio {dtype}"] = slow / fast
    report.publish(
        "P14",
        rows,
        value=value,
        bar=dict.fromkeys(value, "at least 1"),
        holds=all(ratio >= 1 for ratio in value.values()),
        shapes=f"Llama of {size / 1e6:.0f} M, {chosen.rows} rows of {chosen.lengths[0]} to {chosen.lengths[1]} tokens ({tokens:,}), "
        f"batches of {chosen.batch_tokens:,}",
        dtype=f"on {chosen.device}",
        file=chosen.json,
    )


def write_teacher(folder: Path, hidden: int, layers: int, vocabulary: int) -> int:
    """A Llama with random weights; how many numbers it has."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        initializer_range=0.05,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def cpu_seconds() -> float:
    """Of this process and all that it started."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def beside(answers: tuple[torch.Tensor, torch.Tensor], others: tuple[torch.Tensor, torch.Tensor]) -> str:
    """The largest difference of states, as a share of the largest value, and how many predictions are equal."""
    (states, predictions), (other, of_other) = answers, others
    difference = float((states - other).abs().max() / other.abs().max())
    return f"{difference:.1e}, {100 * float((predictions == of_other).float().mean()):.0f} %"


def compare(
    folder: Path, questions: list[Question], dtype: str, chosen: Any, exact: dict[str, Any]
) -> list[dict[str, Any]]:
    """A row of the table for each engine; `exact` keeps what transformers says in the first dtype."""
    tokens = sum(len(question.ids) for question in questions)
    settings = {"device": chosen.device, "batch_tokens": chosen.batch_tokens}
    start = time.perf_counter()
    slow = TransformersEngine(load_model(folder, dtype), chosen.vocabulary, **settings)
    loaded = {"transformers": time.perf_counter() - start}
    start = time.perf_counter()
    memory = {"gpu_memory_utilization": chosen.gpu_memory}
    with VllmEngine(folder, dtype=dtype, length=chosen.lengths[1], **settings, **memory) as fast:
        loaded["vllm"] = time.perf_counter() - start
        engines: dict[str, TeacherEngine] = {"transformers": slow, "vllm": fast}
        states: dict[str, torch.Tensor] = {}

        used: dict[str, list[float]] = {name: [] for name in engines}

        def side(name: str) -> None:
            before = cpu_seconds()
            states[name] = run(engines[name], questions, chosen.batch_tokens, AHEAD[name]).float()
            used[name].append(cpu_seconds() - before)

        seconds = report.alternate({name: lambda name=name: side(name) for name in engines}, chosen.repeats)
    head = slow.head
    parts = {name: own.to(head.weight.device).split(1024) for name, own in states.items()}
    found = {
        name: (states[name], torch.cat([head.logits(part).argmax(-1).cpu() for part in of_engine]))
        for name, of_engine in parts.items()
    }
    exact.setdefault("transformers", found["transformers"])
    return [
        {
            "dtype": dtype,
            "engine": name,
            "seconds": seconds[name],
            "tokens / s": tokens / seconds[name],
            "CPU seconds": (spent := statistics.median(used[name][1:])),
            "tokens / CPU s": tokens / spent,
            "start s": loaded[name],
            "from transformers": beside(found[name], found["transformers"]) if name == "vllm" else "-",
            f"from {chosen.dtypes[0]}": beside(found[name], exact["transformers"]),
        }
        for name in engines
    ]


if __name__ == "__main__":
    main()
