"""Steps on text that the student writes against steps of the same method on text of the same length that is there already.

A step off policy is the teacher's layers, forward, backward and AdamW. A step on policy is that and its part of what writes its text:
with staleness s the prompts of s + 1 steps are continued at once, after one hand-over of the weights. A model of random weights hardly
ever draws the one token that ends a sample, so all samples have the same length: no engine waits for the longest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import report
import torch
from p8_rollouts import Tokens, continued
from p13_step import model

from dskd import methods
from dskd.data.collator import Collator
from dskd.losses.tokens import TokenBatch
from dskd.rollouts.sampler import Prompt, Sampler, TransformersSampler
from dskd.rollouts.vllm_sampler import VllmSampler
from dskd.teachers.live import LiveTeacher
from dskd.tokenization.vocabulary import SharedVocabulary
from dskd.training.distiller import Distiller

BAR = 0.7


def batch_of(prompts: list[Prompt], responses: list[list[int]]) -> TokenBatch:
    """Examples that teacher and student read in the same tokens."""
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        row: dict[str, Any] = {"sampled": True}
        for side in ("student", "teacher"):
            row |= {f"{side}_ids": prompt.student + response, f"{side}_prompt_length": len(prompt.student)}
            row |= {f"{side}_pairs": list(range(len(response)))}
        rows.append(row)
    return Collator()(rows)


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/on_policy_step.py --engine vllm --json step.json")
    options.add_argument("--engine", nargs="+", choices=["transformers", "vllm"], default=["transformers", "vllm"])
    options.add_argument("--staleness", type=int, nargs="+", default=[0, 4])
    options.add_argument("--method", default="kd")
    options.add_argument("--batch", type=int, default=16, help="examples a step")
    options.add_argument("--prompt", type=int, nargs=2, default=[32, 96], metavar=("SHORTEST", "LONGEST"))
    options.add_argument("--new", type=int, default=128, help="tokens to write after each")
    options.add_argument("--vocabulary", type=int, default=32_000)
    options.add_argument("--student", type=int, nargs=2, default=[512, 8], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--teacher", type=int, nargs=2, default=[1024, 6], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    size = chosen.vocabulary
    student, teacher = model(*chosen.student, size), model(*chosen.teacher, size)
    random, end = np.random.default_rng(0), size - 1
    most = chosen.batch * (max(chosen.staleness) + 1)
    lengths = random.integers(*chosen.prompt, size=most, endpoint=True)
    prompts = [Prompt(random.integers(0, end, size=length).tolist(), []) for length in lengths]
    numbers = random.random((most, chosen.new))
    there = batch_of(prompts[: chosen.batch], random.integers(0, end, size=(chosen.batch, chosen.new)).tolist())
    every = np.arange(size)
    distiller = Distiller(
        student,
        methods.get(chosen.method)(),
        student_size=size,
        teacher=LiveTeacher(teacher, size),
        shared=SharedVocabulary(every, every, every, same=True),
    )
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=0.0)

    def step() -> None:
        distiller.on_step_begin()
        distiller(distiller.fetch(there))[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    vocabulary: Any = Tokens(size, token_bytes=[b"x"] * size)
    samplers: dict[str, Sampler] = {}
    if "transformers" in chosen.engine:
        samplers["transformers"] = TransformersSampler(student, vocabulary, end)
    if "vllm" in chosen.engine:
        samplers["vllm"] = VllmSampler(
            student, vocabulary, end, length=chosen.prompt[1] + chosen.new, dtype="float32", prompts=most
        )

    def writing(sampler: Sampler, staleness: int) -> Callable[[], int]:
        count = chosen.batch * (staleness + 1)
        order = sorted(range(count), key=lambda k: -len(prompts[k].student))

        def write() -> int:
            sampler.update()
            samples = continued(sampler, [prompts[k] for k in order], numbers[order])
            return sum(len(sample.ids) for sample in samples)

        return write

    sides: dict[str, Callable[[], Any]] = {"step": step}
    for name, sampler in samplers.items():
        sides |= {f"{name}, staleness {s}": writing(sampler, s) for s in chosen.staleness}
    seconds = report.alternate(sides, chosen.repeats)
    for sampler in samplers.values():
        sampler.close()
    tokens = there.student.size
    rows, value = [], {}
    for name in samplers:
        for staleness in chosen.staleness:
            key = f"{name}, staleness {staleness}"
            each = seconds[key] / (staleness + 1)
            value[key] = seconds["step"] / (seconds["step"] + each)
            rows.append(
                {
                    "text": key,
                    "seconds of a step": round(seconds["step"], 3),
                    "seconds of its text": round(each, 3),
                    "tokens / s off policy": tokens / seconds["step"],
                    "tokens / s on policy": tokens / (seconds["step"] + each),
                    "ratio": value[key],
                }
            )
    stalest = [ratio for key, ratio in value.items() if key.endswith(f"staleness {max(chosen.staleness)}")]
    weights = sum(parameter.numel() for parameter in student.parameters())
    report.publish(
        "on-policy step",
        rows,
        value=value,
        bar=dict.fromkeys(value, f"at least {BAR} at the largest staleness, by one of the engines"),
        holds=max(stalest) >= BAR,
        shapes=f"{chosen.method}, student of {weights / 1e6:.0f} M, teacher {chosen.teacher[0]} × {chosen.teacher[1]}, "
        f"vocabulary {size:,}, {chosen.batch} examples of {chosen.prompt[0]} to {chosen.prompt[1]} tokens and {chosen.new} new ones",
        dtype="float32",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
