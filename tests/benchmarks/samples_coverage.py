"""How often 95 % intervals hold the truth where each of few problems was answered several times: Wilson's over problems, the bootstrap's.

A problem's chance to be solved is drawn from a beta distribution, its samples from that chance; the truth is the distribution's mean.
"""

from __future__ import annotations

import argparse

import numpy as np

from harness.statistics.intervals import bootstrap_interval, clustered_wilson_interval, mean_and_error

SIZES = ((30, 16), (30, 64), (164, 20))
# Problems that are solved half of the time, that are solved always or never, mostly never, hardly ever, mostly.
SHAPES = ((2.0, 2.0), (0.3, 0.3), (0.1, 0.9), (0.05, 1.5), (8.0, 1.0))


def measure(problems: int, samples: int, shape: tuple[float, float], repeats: int) -> tuple[float, float, float, float]:
    """Coverage in per cent and mean width in points: of Wilson's interval over problems, then of the bootstrap's."""
    random, truth = np.random.default_rng(0), shape[0] / sum(shape)
    found = []
    for repeat in range(repeats):
        rates = random.binomial(samples, random.beta(*shape, problems)) / samples
        mean, error = mean_and_error(rates)
        assert error is not None
        both = (
            clustered_wilson_interval(mean, error, problems, problems * samples),
            bootstrap_interval(rates, seed=repeat, resamples=2000),
        )
        found.append([part for low, high in both for part in (low <= truth <= high, high - low)])
    wilson, wilson_width, bootstrap, bootstrap_width = 100 * np.mean(np.array(found, dtype=float), axis=0)
    return wilson, wilson_width, bootstrap, bootstrap_width


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python tests/benchmarks/samples_coverage.py --repeats 2000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=2000)
    options = parser.parse_args()
    print("| problems | samples of each | mean chance | Wilson | its width | bootstrap | its width |")
    print("|---|---|---|---|---|---|---|")
    for problems, samples in SIZES:
        for shape in SHAPES:
            values = measure(problems, samples, shape, options.repeats)
            truth = 100 * shape[0] / sum(shape)
            print(
                f"| {problems} | {samples} | {truth:.0f} | {' | '.join(f'{value:.1f}' for value in values)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
