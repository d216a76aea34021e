"""Training steps at the sizes of real models: operations a second, as a share of the GPU's peak, and memory.

A student with the layers of a published model and random weights, and of its teacher what a training on cached hidden states has: the
output head. A step is forward, backward and AdamW in float32 on products in bfloat16, as `dskd.train` does it. Operations are those
that PyTorch counts in one step (torch.utils.flop_counter).
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
import report
import torch
from p13_step import Kept
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from dskd import methods
from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from dskd.training.distiller import Distiller

# Dense bfloat16 products, in TFLOP/s, by a part of the device's name; the first that fits counts.
PEAK_TFLOPS = {
    "B200": 2250.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "GH200": 989.0, "A100": 312.0, "A800": 312.0, "L40S": 362.0,
    "L4": 121.0, "A10G": 70.0, "A10": 125.0, "RTX 4090": 165.2, "RTX 3090": 71.0, "V100": 125.0,
}  # fmt: skip
STUDENTS = {
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 4096,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True, "max_position_embeddings": 4096,
    },
    "tiny": {
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "tie_word_embeddings": True, "max_position_embeddings": 4096,
    },
}  # fmt: skip
METHODS = ("sft", "kd", "dskd-v2", "dskd-v2-eta")


@dataclass(frozen=True)
class Step:
    """A step to measure."""

    method: str
    compiled: bool = False


def random_student(name: str, vocabulary: int, device: str) -> Any:
    """A student with float32 weights, as trainings have them."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**STUDENTS[name], vocab_size=vocabulary)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def random_batch(chosen: Any) -> tuple[TokenBatch, Kept]:
    """Texts of one length, the last part of each labelled, and what a cached teacher knows at its labelled tokens."""
    (count, length), size, device = chosen.batch, chosen.vocabulary, chosen.device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, size, (count, length), generator=generator)
    labelled = torch.arange(count * length).view(count, length)[:, int(length * (1 - chosen.labelled)) :].flatten()
    pairs = torch.arange(len(labelled))
    side = SideTokens(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=torch.arange(length).expand(count, -1),
        labelled=labelled,
        labels=ids.flatten()[labelled],
        pairs=pairs,
        pairs_on_host=pairs,
    ).to(device)
    dtype = getattr(torch, chosen.dtype)
    weight = torch.randn(size, chosen.teacher_hidden, device=device, dtype=dtype) * (3 / chosen.teacher_hidden**0.5)
    head = Head(weight, None, 1.0, 0.0, size)
    hidden = torch.randn(len(labelled), chosen.teacher_hidden, device=device, dtype=dtype)
    with torch.no_grad():
        predictions = torch.cat([head.logits(part).argmax(-1) for part in hidden.split(512)])
    return TokenBatch(side, side), Kept(head, hidden, predictions)


def measure(step: Step, chosen: Any, batch: TokenBatch, teacher: Kept) -> dict[str, Any]:
    """Seconds, operations and peak memory of one kind of step."""
    every = np.arange(chosen.vocabulary)
    student = random_student(chosen.student, chosen.vocabulary, chosen.device)
    shared, taught = SharedVocabulary(every, every, every, same=True), None if step.method == "sft" else teacher
    distiller = Distiller(
        student, methods.get(step.method)(), student_size=chosen.vocabulary, teacher=taught, shared=shared
    ).to(chosen.device)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=0.0, fused=chosen.device != "cpu")

    def run() -> None:
        distiller.on_step_begin()
        fetched = distiller.fetch(batch)
        with report.autocast(chosen):
            loss = distiller(fetched)[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        run()  # and the optimizer's state is there
    if step.compiled:
        student.base_model.compile(dynamic=True)
    run()
    with report.peak_memory(chosen.device) as memory:
        run()
    resident = torch.cuda.memory_allocated() if chosen.device != "cpu" else None
    seconds = report.alternate({"step": run}, chosen.repeats, chosen.device)["step"]
    return {
        "method": step.method,
        "compiled": step.compiled,
        "seconds": seconds,
        "TFLOP": counter.get_total_flops() / 1e12,
        "TFLOP/s": counter.get_total_flops() / 1e12 / seconds,
        "tokens/s": batch.student.input_ids.numel() / seconds,
        "peak GB": ((resident or 0) + memory.peak) / 1e9,
    }


def product_rate(chosen: Any) -> float:
    """TFLOP/s of one large product in this dtype: what can be had of the device."""
    size = chosen.product
    one, other = (torch.randn(size, size, device=chosen.device, dtype=getattr(torch, chosen.dtype)) for _ in range(2))
    seconds = report.alternate({"product": lambda: one @ other}, max(3, chosen.repeats), chosen.device)["product"]
    return 2 * size**3 / seconds / 1e12


def main() -> None:
    options = report.with_device(
        report.parser(__doc__ or "", "python tests/benchmarks/steps_at_size.py --device cuda --dtype bfloat16")
    )
    options.add_argument("--student", choices=list(STUDENTS), default="qwen2.5-0.5b")
    options.add_argument("--teacher-hidden", type=int, default=3584, help="hidden size of the teacher")
    options.add_argument("--vocabulary", type=int, default=151_936)
    options.add_argument("--batch", type=int, nargs=2, default=[8, 512], metavar=("EXAMPLES", "LENGTH"))
    options.add_argument("--labelled", type=float, default=0.5, help="share of positions with a label")
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options.add_argument(
        "--compiled", nargs="*", choices=METHODS, default=[], help="methods that are also measured with torch_compile"
    )
    options.add_argument(
        "--product", type=int, default=8192, help="rows of the product that the device is measured with"
    )
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    name = torch.cuda.get_device_name() if chosen.device != "cpu" else "cpu"
    peak = next((rate for part, rate in PEAK_TFLOPS.items() if part in name), None)
    possible = product_rate(chosen)
    batch, teacher = random_batch(chosen)
    rows = []
    for step in [*map(Step, chosen.methods), *(Step(method, compiled=True) for method in chosen.compiled)]:
        row = measure(step, chosen, batch, teacher)
        row |= {"share of one product": row["TFLOP/s"] / possible}
        rows.append(row | {"share of peak": row["TFLOP/s"] / peak if peak else "–"})
        gc.collect()
        if chosen.device != "cpu":
            torch.cuda.empty_cache()
    report.publish(
        "steps",
        rows,
        value={"product TFLOP/s": possible, "peak TFLOP/s": peak or 0.0},
        bar=dict.fromkeys(
            ("product TFLOP/s", "peak TFLOP/s"), "none: measured, and from the data sheet (0: not known)"
        ),
        holds=True,
        shapes=f"{chosen.student}, teacher {chosen.teacher_hidden}, vocabulary {chosen.vocabulary:,}; "
        f"{chosen.batch[0]} × {chosen.batch[1]} positions, {len(batch.student.labels)} labelled; {name}",
        dtype=chosen.dtype,
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
