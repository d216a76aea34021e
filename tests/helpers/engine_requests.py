"""The requests that every engine is asked in these tests: prompts of many lengths, some with newlines, accents and an emoji."""

from collections import Counter
from typing import NamedTuple

from harness.engines._seeds import sample_seed
from harness.engines._types import Completion, Sampling
from harness.engines.base import Engine

STOP = ("app", "add", "green", "rown brow")  # the last stands in no single token
_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "Question",
    "how",
    "many",
    "apples",
    "Answer",
    "café",
    "🙂",
    "42",
]
PROMPTS = [" ".join(_WORDS[(3 * n + k) % len(_WORDS)] for k in range(1 + n)) + "\n" * (n % 2) for n in range(15)] + [
    "the lazy dog " * 60  # longer than the models' context
]


class Request(NamedTuple):
    """A prompt, how it is completed, and the item whose random numbers it gets."""

    prompt: str
    sampling: Sampling
    item: str


def requests_of(stop: tuple[str, ...] = STOP, **settings: object) -> list[Request]:
    """The prompts that all engines are asked; `settings` are those of `Sampling`."""
    sampling = Sampling(**{"max_new_tokens": 24, "stop": tuple(stop), **settings})  # type: ignore[arg-type]
    return [Request(prompt, sampling, f"t/{number}") for number, prompt in enumerate(PROMPTS)]


def complete(engine: Engine, requests: list[Request]) -> list[Completion]:
    """The completion of each request; an item that is there several times gets another seed each time."""
    (sampling,) = {request.sampling for request in requests}
    seen: Counter[str] = Counter()
    seeds = []
    for request in requests:
        seeds.append(sample_seed(engine.seed, request.item, seen[request.item]))
        seen[request.item] += 1
    return engine.complete([request.prompt for request in requests], sampling, seeds)


def texts(engine: Engine, requests: list[Request]) -> list[str]:
    """The texts of the completions."""
    return [completion.text for completion in complete(engine, requests)]
