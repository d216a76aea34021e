"""What scoring says about one output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

INVALID = "invalid"
HARNESS_ERROR = "harness_error"
Advance = Callable[[], None]  # called after each output


@dataclass(frozen=True)
class SampleScore:
    """The scores of one output and how they came about.

    `scores` maps each metric of the task to 0..100, or to None where the harness could not score the output, which is
    never a wrong answer. `extracted` is what was read out of the output (None where nothing was). `outcome` is
    "invalid" where nothing could be extracted; otherwise "correct" or "wrong" (numbers), "scored" (Rouge-L), or the
    sandbox's word (code, see `harness.sandbox.Execution`), with `detail` to say more. `weights` has the parts that a score
    is the mean of, for metrics that count parts and not samples (IFEval's instructions); a metric without one has one part.
    """

    scores: dict[str, float | None]
    extracted: dict[str, str | None]
    outcome: str
    detail: str = field(default="", compare=False)
    weights: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as they are in a line of samples.jsonl; `detail` and `weights` only where there are some."""
        return {key: value for key, value in asdict(self).items() if key not in ("detail", "weights") or value}


def score_each(
    score: Callable[[Mapping[str, Any], str], SampleScore],
    docs: Sequence[Mapping[str, Any]],
    outputs: Sequence[str],
    advance: Advance,
) -> list[SampleScore]:
    """Return the score of each document's output, one after another; `advance` is called after each."""
    scores = []
    for doc, output in zip(docs, outputs, strict=True):
        scores.append(score(doc, output))
        advance()
    return scores


def before_stop(output: str, stop: Sequence[str]) -> str:
    """Return the output up to the earliest of the stop strings."""
    return output[: min((at for string in stop if (at := output.find(string)) >= 0), default=len(output))]
