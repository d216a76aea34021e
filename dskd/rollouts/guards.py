"""Signs that training on the student's own text goes wrong, each told once, with its numbers (docs/rollouts.md).

They are looked for among the samples of all processes, `WINDOW` or more at a time. The first of these are what later ones are compared
with. Nothing here changes what is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WINDOW = 64  # samples; the error of a share of that many is 6 points at most
LONGER = 1.5  # × the mean length of the first
CUT_SHARE = 0.2
ENTROPY_LEFT = 0.5  # of that of the first
REPEATED_SHARE = 0.3
NGRAM = 4  # tokens

# What is counted, in `Rollouts.counts`: samples with their tokens, those that ended, n-grams and those that their sample has had before,
# tokens whose log q is known, and the sum of that.
PARTS_OF_NAT = 1_000_000  # in which that sum is counted, so that it is the same in any order
COUNTED = ("samples", "tokens", "ended", "ngrams", "repeated", "known", "log_q")


def repetitions(ids: Sequence[int]) -> tuple[int, int]:
    """(n-grams of a sample, those of them that occur in it before)."""
    ngrams = [tuple(ids[k : k + NGRAM]) for k in range(len(ids) - NGRAM + 1)]
    return len(ngrams), len(ngrams) - len(set(ngrams))


class Guards:
    """Compares samples with the first ones.

    Attributes:
        told: What was told, by sign.
    """

    def __init__(self) -> None:
        self.told: dict[str, str] = {}
        self._first: dict[str, float] | None = None
        self._seen: dict[str, float] = dict.fromkeys(COUNTED, 0.0)

    def tell(self, sign: str, message: str) -> list[str]:
        """The message, if there was none of this sign."""
        if sign in self.told:
            return []
        self.told[sign] = message
        return [message]

    def look(self, counts: Mapping[str, float], step: int) -> list[str]:
        """New warnings after a step; counts: `COUNTED` of all processes, since the beginning."""
        window = {name: counts[name] - self._seen[name] for name in COUNTED}
        if window["samples"] < WINDOW:
            return []
        self._seen = {name: float(counts[name]) for name in COUNTED}
        first = self._first = self._first or window
        told: list[str] = []
        where = f"rollouts: until step {step}"
        length, before = (each["tokens"] / each["samples"] for each in (window, first))
        if length > LONGER * before:
            told += self.tell(
                "length",
                f"{where} samples have {length:.1f} tokens on average, the first {first['samples']:.0f} had {before:.1f}: "
                "text that grows is often the teacher's liking for long text, or an end that is not learned",
            )
        if (cut := 1 - window["ended"] / window["samples"]) > CUT_SHARE:
            told += self.tell(
                "cut",
                f"{where} {cut:.0%} of {window['samples']:.0f} samples were cut before their end, which is then not learned; "
                "fix: raise rollouts.max_new_tokens, or train on the data first (start_epoch)",
            )
        if (repeated := window["repeated"] / max(window["ngrams"], 1)) > REPEATED_SHARE:
            told += self.tell(
                "repeated",
                f"{where} {repeated:.0%} of all runs of {NGRAM} tokens repeat one of the same sample: the student writes loops, "
                "to which teachers give high probabilities; fix: train on the data first (start_epoch), or a lower share",
            )
        if window["known"] and first["known"]:
            entropy, at_first = (-each["log_q"] / PARTS_OF_NAT / each["known"] for each in (window, first))
            if entropy < ENTROPY_LEFT * at_first:
                told += self.tell(
                    "entropy",
                    f"{where} sampled tokens have {entropy:.3f} nats on average, the first had {at_first:.3f}: the student's "
                    "distributions collapse; fix: a lower learning_rate, or a share of the data's text",
                )
        return told

    def state(self) -> dict[str, Any]:
        """What a training that goes on from here needs."""
        return {"told": self.told, "first": self._first, "seen": self._seen}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` said."""
        self.told = {**self.told, **state["told"]}
        self._first, self._seen = state["first"], state["seen"]
