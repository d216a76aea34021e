"""Do two engines answer alike? Token by token, and where they part, by how much the model prefers one token to the other.

Greedy decoding takes the largest logit. Two engines that compute the same function in another order of sums differ in the last
digits of a logit, so where two tokens are as good as equal each may take its own, and all that follows differs. Such a tie says
nothing against an engine; a token that the model does not prefer does. The two are told apart by one forward pass of transformers
over the prompt and what both wrote before they parted: both tokens' logits, and the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from dskd.modeling.loading import load_model
from harness.engines._types import Completion

if TYPE_CHECKING:
    from torch import Tensor

# How far below the largest logit a token may be and still be one that an engine takes by rounding. A float32 logit's last digit is
# 1e-6 and a pass adds up hundreds of those; of the others, four times the last digit of a logit between 8 and 16.
TOLERANCE = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.25}


@dataclass(frozen=True)
class TokenChoice:
    """A token that an engine took, and what the model says of it: its logit and its rank, 1 for the largest.

    All None where the engine had ended its answer (a stop string) while the other went on.
    """

    token: int | None
    text: str | None
    logit: float | None
    rank: int | None


@dataclass(frozen=True)
class Difference:
    """Where two answers to one prompt part, counted in tokens of the answer from 0.

    `gap` is the first engine's logit less the second's, `below_top` how far the worse of both is below the largest of all.
    """

    index: int
    position: int
    choices: tuple[TokenChoice, TokenChoice]
    gap: float | None
    below_top: float | None

    def is_tie(self, tolerance: float) -> bool:
        """Whether rounding explains it: both tokens are within the tolerance of the largest logit."""
        return self.below_top is not None and self.below_top <= tolerance


def first_difference(first: Sequence[int], second: Sequence[int]) -> int | None:
    """The first position at which two lists of ids differ, the shorter one's length where it is how the other begins; or None."""
    for position, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return position
    return None if len(first) == len(second) else min(len(first), len(second))


def find_differences(
    first: Sequence[Completion],
    second: Sequence[Completion],
    logits_after: Callable[[list[int]], Tensor],
    spell: Callable[[int], str],
) -> Iterable[Difference]:
    """One after another, where the answers to the same prompts part.

    `logits_after` gives the logits [vocabulary] of the token after some ids, `spell` a token's text. RuntimeError where the
    engines were not asked the same ids.
    """
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        if one.prompt_ids != other.prompt_ids:
            raise RuntimeError(f"request {index}: the engines were asked different prompt ids")
        position = first_difference(one.ids, other.ids)
        if position is None:
            continue
        first_token, second_token = (ids[position] if position < len(ids) else None for ids in (one.ids, other.ids))
        if first_token is None or second_token is None:
            # No logits are compared where one has ended: what ends an answer is a stop string, the same rule for both.
            ended = TokenChoice(None, None, None, None)
            taken = [ended if t is None else TokenChoice(t, spell(t), None, None) for t in (first_token, second_token)]
            yield Difference(index, position, (taken[0], taken[1]), None, None)
            continue
        logits = logits_after([*one.prompt_ids, *one.ids[:position]])
        a, b = float(logits[first_token]), float(logits[second_token])
        choices = (
            TokenChoice(first_token, spell(first_token), a, 1 + int((logits > a).sum())),
            TokenChoice(second_token, spell(second_token), b, 1 + int((logits > b).sum())),
        )
        yield Difference(index, position, choices, gap=a - b, below_top=float(logits.max()) - min(a, b))


def load_logits(model: Path, dtype: str) -> Callable[[list[int]], Tensor]:
    """Load a model by transformers; the function gives its logits [vocabulary], in float32, for the token after some ids."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load_model(model, dtype).to(device).eval()

    @torch.inference_mode()
    def logits_after(ids: list[int]) -> Tensor:
        output = loaded(input_ids=torch.tensor([ids], device=device), use_cache=False, logits_to_keep=1)
        return output.logits[0, -1].float().cpu()

    return logits_after


@dataclass(frozen=True)
class EngineComparison:
    """Two engines on one task: `completions` and `scores` by engine, one an item; scores are those of every metric of the task."""

    ids: list[str]
    engines: tuple[str, str]
    completions: Mapping[str, Sequence[Completion]]
    scores: Mapping[str, Sequence[Mapping[str, float | None]]]
    differences: Sequence[Difference]
    tolerance: float

    @property
    def disagreements(self) -> list[Difference]:
        """The differences that rounding does not explain."""
        return [difference for difference in self.differences if not difference.is_tie(self.tolerance)]

    def counts(self) -> dict[str, int]:
        """Items: all, with equal ids, text and scores; and the differing ones, told apart."""
        first, second = (self.completions[engine] for engine in self.engines)
        scored = zip(*(self.scores[engine] for engine in self.engines), strict=True)
        return {
            "items": len(self.ids),
            "equal_ids": sum(one.ids == other.ids for one, other in zip(first, second, strict=True)),
            "equal_text": sum(one.text == other.text for one, other in zip(first, second, strict=True)),
            "equal_scores": sum(one == other for one, other in scored),
            "ties": len(self.differences) - len(self.disagreements),
            "disagreements": len(self.disagreements),
        }

    def mean_scores(self) -> dict[str, dict[str, float | None]]:
        """Of each engine, the mean of each metric over the items that have a score; None where none has."""
        means: dict[str, dict[str, float | None]] = {engine: {} for engine in self.engines}
        for engine, scores in self.scores.items():
            for metric in scores[0]:
                values = [value for each in scores if (value := each[metric]) is not None]
                means[engine][metric] = fmean(values) if values else None
        return means

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON has it."""
        return {
            "n": self.counts(),
            "tolerance": self.tolerance,
            "scores": self.mean_scores(),
            "generated_tokens": {e: sum(len(each.ids) for each in self.completions[e]) for e in self.engines},
            "differences": [self._difference(difference) for difference in self.differences],
        }

    def _difference(self, difference: Difference) -> dict[str, Any]:
        index = difference.index
        return {
            "id": self.ids[index],
            "position": difference.position,
            "tie": difference.is_tie(self.tolerance),
            "gap": difference.gap,
            "below_top": difference.below_top,
            "tokens": {
                engine: {"id": choice.token, "text": choice.text, "logit": choice.logit, "rank": choice.rank}
                for engine, choice in zip(self.engines, difference.choices, strict=True)
            },
            "equal_text": len({self.completions[engine][index].text for engine in self.engines}) == 1,
            "scores": {engine: dict(self.scores[engine][index]) for engine in self.engines},
        }
