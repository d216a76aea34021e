"""Bar P13: a whole optimizer step of dual-space distillation against what its own matrix products would take.

The products are counted from the shapes: layers of student (forward and backward) and teacher (forward, unless cached), heads on
labelled positions only, projectors, and the derived projector once a step. They are priced at the floating-point rate that a step
of plain supervised fine-tuning of the same student reaches in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import report
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from dskd import methods
from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.modeling.lm_head import Head, final_hidden_states
from dskd.teachers.live import LiveTeacher
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import SharedVocabulary
from dskd.training.distiller import Distiller


class Kept(Teacher):
    """A teacher cache without the reading: what the bar calls a hit."""

    def __init__(self, head: Head, hidden: Tensor, predictions: Tensor) -> None:
        super().__init__()
        self.head = head
        self._outputs = {"hidden": hidden, "predictions": predictions}

    def _fetch(self, side: SideTokens) -> SideTokens:
        return replace(side, **self._outputs)


def model(hidden: int, layers: int, vocabulary: int) -> Any:
    torch.manual_seed(hidden)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def layer_products(model: Any, places: int, length: int) -> float:
    """Floating-point operations of the layers' forward: 2 for each weight and place, and attention's two products."""
    config = model.config
    weights = sum(p.numel() for name, p in model.named_parameters() if "layers" in name and p.dim() == 2)
    return 2.0 * places * (weights + config.num_hidden_layers * 2 * length * config.hidden_size)


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/p13_step.py --vocabulary 50257 --json P13.json")
    options.add_argument("--vocabulary", type=int, default=50_257)
    options.add_argument("--student", type=int, nargs=2, default=[512, 4], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--teacher", type=int, nargs=2, default=[1024, 6], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--batch", type=int, nargs=2, default=[8, 128], metavar=("EXAMPLES", "LENGTH"))
    options.add_argument("--labelled", type=float, default=0.5, help="share of positions with a label")
    options.add_argument("--repeats", type=int, default=3)
    chosen = report.with_device(options).parse_args()
    device, own = chosen.device, getattr(torch, chosen.dtype)
    count, length = chosen.batch
    places, size = count * length, chosen.vocabulary
    student = model(*chosen.student, size).to(device)
    teacher = model(*chosen.teacher, size).to(device, own)  # as a training has them
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, size, (count, length), generator=generator)
    labelled = torch.arange(places).view(count, length)[:, int(length * (1 - chosen.labelled)) :].flatten()
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
    batch = TokenBatch(side, side)
    every = np.arange(size)
    shared = SharedVocabulary(every, every, every, same=True)
    live = LiveTeacher(teacher, size)
    assert live.head is not None
    with torch.no_grad():
        hidden = final_hidden_states(teacher, side.input_ids, side.attention_mask, side.position_ids).flatten(0, 1)[
            side.labelled
        ]
        predictions = torch.cat([live.head.logits(part).argmax(-1) for part in hidden.split(128)])
    cached = Kept(live.head, hidden, predictions)

    def step(name: str, outputs: Teacher | None) -> Callable[[], None]:
        distiller = Distiller(student, methods.get(name)(), student_size=size, teacher=outputs, shared=shared).to(
            device
        )
        optimizer = torch.optim.AdamW(distiller.parameters(), lr=0.0)

        def run() -> None:
            distiller.method.on_step_begin(distiller.whole_student_head())
            fetched = distiller.fetch(batch)
            with report.autocast(chosen):
                loss = distiller(fetched)[0]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    seconds = report.alternate(
        {"sft": step("sft", None), "dskd-v2 live": step("dskd-v2", live), "dskd-v2 cached": step("dskd-v2", cached)},
        chosen.repeats,
        device,
    )
    d, wide, tokens = chosen.student[0], chosen.teacher[0], len(labelled)
    sft = 3 * layer_products(student, places, length) + 6.0 * tokens * size * d
    rate = sft / seconds["sft"]
    # Beside cross entropy: the projected teacher forward and to the projector; the teacher's own logits; the student's mapped into
    # the teacher's space, forward and back; three products of a projector with tokens; the derived projector.
    dual = 4.0 * tokens * size * d + 6.0 * tokens * size * wide + 10.0 * tokens * d * wide + 2.0 * size * d * wide
    own = {"sft": sft, "dskd-v2 cached": sft + dual}
    own["dskd-v2 live"] = sft + dual + layer_products(teacher, places, length)
    rows = [
        {
            "step": name,
            "seconds": round(seconds[name], 3),
            "own products, GFLOP": round(own[name] / 1e9, 1),
            "at the rate of SFT, seconds": round(own[name] / rate, 3),
            "ratio": round(seconds[name] * rate / own[name], 3),
            "to SFT": round(seconds[name] / seconds["sft"], 2),
        }
        for name in ("sft", "dskd-v2 live", "dskd-v2 cached")
    ]
    value = {name: seconds[f"dskd-v2 {name}"] * rate / own[f"dskd-v2 {name}"] for name in ("live", "cached")}
    report.publish(
        "P13",
        rows,
        value=value,
        bar=dict.fromkeys(value, "≤ 1.1 of the time of its own products at the rate of the SFT step"),
        holds=all(ratio <= 1.1 for ratio in value.values()),
        shapes=f"vocabulary {size:,}; student {d} × {chosen.student[1]} layers, teacher {wide} × {chosen.teacher[1]}; "
        f"{count} × {length} positions, {tokens} labelled",
        dtype=chosen.dtype if device == "cpu" else f"{chosen.dtype} on {device}",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
