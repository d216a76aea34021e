"""CPU seconds of the three products of a head with all labelled tokens, by how many tokens are taken at once, in turns."""

from __future__ import annotations

import argparse
import statistics
import time

import torch

SIZES = (64, 128, 256, 512)


def seconds(hidden: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor, tokens: int) -> float:
    """Of logits, their gradient to hidden states, and that to the head, for chunks of so many tokens."""
    start = time.process_time()
    for part in hidden.split(tokens):
        logits = part @ weight.T
        logits @ weight
        gradient.addmm_(logits.T, part)
    return time.process_time() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vocabulary", type=int, default=151_936)
    options.add_argument("--hidden", type=int, default=512)
    options.add_argument("--rounds", type=int, default=4)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    weight, hidden = torch.randn(arguments.vocabulary, arguments.hidden) * 0.02, torch.randn(512, arguments.hidden)
    gradient = torch.zeros_like(weight)
    seconds(hidden, weight, gradient, 512)  # first touch of the memory
    found = [[seconds(hidden, weight, gradient, size) for size in SIZES] for _ in range(arguments.rounds)]
    for size, values in zip(SIZES, zip(*found, strict=True), strict=True):
        print(f"chunks of {size} tokens: {statistics.median(values):.2f} s")


if __name__ == "__main__":
    main()
