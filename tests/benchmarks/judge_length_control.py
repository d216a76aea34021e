"""How well the length-controlled win rate finds the truth, on simulated judges: `python tests/benchmarks/judge_length_control.py`.

Each judge prefers A with the probability of logit θ + φ · tanh(d / 100), d being how much longer A's answer is: normal, with the
mean `longer` and the standard deviation 100. Its win rate at equal length is that of θ alone. `ties` is the share of verdicts that
are ties instead. The last judge always prefers the longer answer.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from harness.judge.length_control import length_controlled


@dataclass(frozen=True)
class Judge:
    """One judge; `phi` infinite: the longer answer wins."""

    name: str
    theta: float
    phi: float
    longer: float
    ties: float = 0.0

    def verdicts(self, random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Preferences and differences in length of `n` pairs."""
        d = random.normal(self.longer, 100, n)
        chance = (d > 0) * 1.0 if np.isinf(self.phi) else expit(self.theta + self.phi * np.tanh(d / 100))
        wins = (random.random(n) < chance) * 1.0
        return np.where(random.random(n) < self.ties, 0.5, wins), d


JUDGES = (
    Judge("quality only", 0.8, 0.0, 100),
    Judge("length only, with noise", 0.0, 1.5, 100),
    Judge("both", 0.8, 1.5, 100),
    Judge("both, against one another", -0.8, 1.5, 100),
    Judge("both, 30 % ties", 0.8, 1.5, 100, ties=0.3),
    Judge("length only, without noise", 0.0, np.inf, 100),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=500)
    repeats = parser.parse_args().repeats
    print("| judge | pairs | truth | plain | length-controlled | covered |\n|---|---|---|---|---|---|")
    random = np.random.default_rng(0)
    for judge in JUDGES:
        for n in (50, 200, 800):
            # Ties pull the truth towards 50, too.
            truth = 100 * ((1 - judge.ties) * expit(judge.theta) + judge.ties / 2)
            plain, found, covered = [], [], 0
            for _ in range(repeats):
                y, d = judge.verdicts(random, n)
                fitted = length_controlled(y, d, range(n))
                plain.append(100 * y.mean())
                found.append(fitted.win_rate)
                covered += fitted.ci95[0] <= truth <= fitted.ci95[1]
            numbers = f"{truth:.1f} | {np.mean(plain):.1f} | {np.mean(found):.1f} | {100 * covered / repeats:.0f} %"
            print(f"| {judge.name} | {n} | {numbers} |")


if __name__ == "__main__":
    main()
