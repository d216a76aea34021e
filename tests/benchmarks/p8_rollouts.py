"""Bar P8: the student's own text by vLLM against transformers' generation, from the same weights by the same random numbers.

Both sides write the same count of tokens: a model of random weights hardly ever draws one of the few tokens that end a sample.
What vLLM needs before the samples of a step, the hand-over of the weights, is timed as well and counts against it. With `--ends N`
samples end after N tokens on average, as those of trained models do: transformers then waits for the longest of each call.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import report
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dskd.rollouts.sampler import Prompt, Sample, Sampler, TransformersSampler
from dskd.rollouts.vllm_sampler import VllmSampler


@dataclass(frozen=True)
class Tokens:
    """As much of a vocabulary as samplers ask for: every id is text but the last, which ends a sample."""

    size: int
    special_ids: frozenset[int] = frozenset()
    token_bytes: list[bytes] = field(default_factory=list)


def continued(sampler: Sampler, prompts: list[Prompt], numbers: np.ndarray) -> list[Sample]:
    """Samples after prompts in the order of their lengths, in calls as a training makes them."""
    size = sampler.prompts_at_once or len(prompts)
    parts = range(0, len(prompts), size)
    return [s for k in parts for s in sampler.sample(prompts[k : k + size], numbers[k : k + size])]


def main() -> None:
    options = report.parser(__doc__ or "", "python tests/benchmarks/p8_rollouts.py --batch 64 --json P8.json")
    options.add_argument(
        "--batch", type=int, default=64, help="prompts of a step, or of the steps that are written at once"
    )
    options.add_argument("--ends", type=int, metavar="N", help="end samples after N tokens on average")
    options.add_argument("--prompt", type=int, nargs=2, default=[32, 96], metavar=("SHORTEST", "LONGEST"))
    options.add_argument("--new", type=int, default=128, help="tokens to write after each")
    options.add_argument("--vocabulary", type=int, default=32_000)
    options.add_argument("--student", type=int, nargs=2, default=[512, 8], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    hidden, layers = chosen.student
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=chosen.vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    student = LlamaForCausalLM(config).eval()
    end = chosen.vocabulary - 1
    stops = frozenset(
        range(chosen.vocabulary // chosen.ends) if chosen.ends else ()
    )  # each is about as likely as any token
    tokens = Tokens(chosen.vocabulary, special_ids=stops, token_bytes=[b"x"] * chosen.vocabulary)
    random = np.random.default_rng(0)
    lengths = sorted(random.integers(*chosen.prompt, size=chosen.batch, endpoint=True), reverse=True)
    prompts = [Prompt(random.integers(0, end, size=length).tolist(), []) for length in lengths]
    numbers = random.random((chosen.batch, chosen.new))
    arguments = (student, tokens, end)
    start = time.perf_counter()
    length = chosen.prompt[1] + chosen.new
    vllm = VllmSampler(*arguments, length=length, dtype="float32", prompts=chosen.batch)  # type: ignore[arg-type]
    started = time.perf_counter() - start
    samplers: dict[str, Sampler] = {"transformers": TransformersSampler(*arguments), "vllm": vllm}  # type: ignore[arg-type]
    written = {name: continued(sampler, prompts, numbers) for name, sampler in samplers.items()}
    counts = {name: sum(len(sample.ids) for sample in samples) for name, samples in written.items()}
    equal = sum(a == b for a, b in zip(written["transformers"], written["vllm"], strict=True))
    sides = {name: lambda sampler=sampler: continued(sampler, prompts, numbers) for name, sampler in samplers.items()}
    seconds = report.alternate({**sides, "hand-over": vllm.update}, chosen.repeats)
    vllm.close()
    seconds["vllm with hand-over"] = seconds["vllm"] + seconds["hand-over"]
    counts["vllm with hand-over"] = counts["vllm"]
    rows = [
        {"engine": name, "tokens": counts[name], "seconds": seconds[name], "tokens / s": counts[name] / seconds[name]}
        for name in ("transformers", "vllm", "vllm with hand-over")
    ]
    speed = {row["engine"]: row["tokens / s"] for row in rows}
    value = {
        "ratio": speed["vllm with hand-over"] / speed["transformers"],
        "ratio without hand-over": speed["vllm"] / speed["transformers"],
        "seconds of a hand-over": seconds["hand-over"],
        "seconds to start vLLM": started,
        "equal samples": equal / chosen.batch,
    }
    size = sum(parameter.numel() for parameter in student.parameters())
    report.publish(
        "P8",
        rows,
        value=value,
        bar={"ratio": "at least 2"},
        holds=value["ratio"] >= 2,
        shapes=f"Llama of {size / 1e6:.0f} M, vocabulary {chosen.vocabulary:,}, {chosen.batch} prompts of {chosen.prompt[0]} to "
        f"{chosen.prompt[1]} tokens, {chosen.new} new ones"
        + (f" at most, {chosen.ends} on average" if chosen.ends else ""),
        dtype="float32",
        file=chosen.json,
    )
    for name in list(value)[1:]:
        print(f"{name}: {value[name]:.3g}")


if __name__ == "__main__":
    main()
