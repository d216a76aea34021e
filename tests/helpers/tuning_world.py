"""Methods whose options matter, as a world with a known truth: what a setting does to a score, how seeds and items scatter.

On the logit scale an answer is the method's level, what its setting does, the item's difficulty, how the item suits the method and
the setting, what the seed does, and the rest of one answer. What a setting does is a smooth random function of all its options
together (a Gaussian process, by random Fourier features: Rahimi and Recht 2007), so options interact; each has its own length scale.
Early in a training the function is another one that correlates with it. The truth of a setting is its mean over all seeds and items.

Shapes: G draws of validation and test items, R tuning seeds of each, N trials, S training seeds, T tasks, n items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.stats import qmc

from harness.config.tuning import Budget, Tuning

Array = np.ndarray

# Of each task: whether an item is right or wrong, or has a score between; and the logit of a usual item with an average setting.
BINARY = np.array([True, True, False])
LEVEL = np.array([-0.7, 0.0, 0.3])
TEACHER = LEVEL + 1.5
# Standard deviations in logits, as in statistics_coverage.py: of items, of what suits a method and its setting, of one answer's rest.
ITEM, SUITS_METHOD, SUITS_SETTING, REST = 1.2, 0.42, 0.42, 0.8
SHARED = 0.7  # of the variance of what a setting does, what it does to all tasks alike
BEHIND = {0.25: 0.6, 0.5: 0.25, 1.0: 0.0}  # logits that a student lacks after a share of its steps
SCALE_SD = 0.3  # settings differ by this in the logarithm of what seeds do
TRIAL_SEED = Tuning(budget=Budget(trials=1)).trial_seed
_FEATURES = 100
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_OTHERS = ITEM**2 + SUITS_METHOD**2 + SUITS_SETTING**2 + REST**2


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        effect_sd: Points: the standard deviation, over all settings, of a setting's true score on a task.
        seed_sd: Points: the standard deviation of the training seeds' true scores.
        early: The correlation of what settings do after a quarter and after half of the steps with what they do at the end.
        trials: Settings that are tried, the default among them.
        halving: Whether worse trials are dropped early.
        validation: Validation items of each task.
        items: Test items of each task.
        options: How many are tuned.
        methods: How many are compared, the first with each of the others.
        draws: Of items, for each draw of the methods.
        tunings: Tuning seeds of each draw of items.
    """

    effect_sd: float = 6.0
    seed_sd: float = 2.0
    early: tuple[float, float] = (0.7, 0.9)
    trials: int = 12
    halving: bool = True
    validation: int = 100
    items: int = 200
    options: int = 3
    methods: int = 4
    draws: int = 40
    tunings: int = 5


def truth(centre: Array, variance: Array | float) -> Array:
    """The mean score, 0 to 100, of logits with this centre and variance `[...]`."""
    logits = np.asarray(centre)[..., None] + np.sqrt(np.asarray(variance))[..., None] * _NODES
    return 100 * (_WEIGHTS / (1 + np.exp(-logits))).sum(axis=-1)


def points_per_logit() -> Array:
    """What a small step in logits is worth on each task `[T]`."""
    return (truth(LEVEL + 0.05, _OTHERS) - truth(LEVEL - 0.05, _OTHERS)) / 0.1


@cache
def points(options: int, trials: int, tuning_seed: int) -> Array:
    """The settings of trials `[N, options]` in the unit cube: the default in the middle, then a scrambled Sobol sequence."""
    sobol = qmc.Sobol(options, scramble=True, rng=tuning_seed).random(max(1, 1 << (trials - 1).bit_length()))
    return np.concatenate([np.full((1, options), 0.5), sobol[: trials - 1]])


class Method:
    """One method of random quality, tuned G × R times.

    Attributes:
        truth: `[G, R, N, T]`, of each trial's setting after all steps.
    """

    def __init__(self, scenario: Scenario, random: np.random.Generator) -> None:
        self.scenario, self.random = scenario, random
        tasks = len(LEVEL)
        scales = 0.5 * np.exp(random.normal(0, 0.5, (scenario.options, 1)))
        self._frequencies = random.normal(0, 1, (scenario.options, _FEATURES)) / scales
        self._phases = random.uniform(0, 2 * np.pi, _FEATURES)
        self._weights = random.normal(0, 1, (_FEATURES, 2 * (1 + tasks) + 1))
        seeds = range(scenario.draws * scenario.tunings)
        settings = np.stack([points(scenario.options, scenario.trials, seed) for seed in seeds])
        settings = settings.reshape(scenario.draws, scenario.tunings, scenario.trials, scenario.options)
        at_end, early, self._scale = self.effects(settings)
        self._effect = {
            share: rho * at_end + np.sqrt(1 - rho**2) * early - BEHIND[share]
            for share, rho in zip((0.25, 0.5, 1.0), (*scenario.early, 1.0), strict=True)
        }
        self.truth = self._truth(at_end, self._scale)
        self._seeds: dict[int, Array] = {}

    def effects(self, settings: Array) -> tuple[Array, Array, Array]:
        """In logits, of settings `[..., options]`: what they do at the end and early `[..., T]`, and how far seeds scatter `[..., T]`."""
        features = np.sqrt(2 / _FEATURES) * np.cos(settings @ self._frequencies + self._phases)
        found = features @ self._weights
        tasks, slope = len(LEVEL), points_per_logit()
        at_end, early = (
            (np.sqrt(SHARED) * part[..., :1] + np.sqrt(1 - SHARED) * part[..., 1:]) * self.scenario.effect_sd / slope
            for part in (found[..., : 1 + tasks], found[..., 1 + tasks : 2 * (1 + tasks)])
        )
        scale = np.exp(SCALE_SD * found[..., -1:] - SCALE_SD**2) * self.scenario.seed_sd / slope
        return at_end, early, scale

    def best(self, tried: int = 1024) -> float:
        """The mean over tasks of the best of so many settings, chosen by their truth."""
        at_end, _, scale = self.effects(points(self.scenario.options, tried, 0))
        return float(self._truth(at_end, scale).mean(axis=-1).max())

    def seed(self, number: int) -> Array:
        """What a training seed does to each setting, in logits `[G, R, N, T]`: half is alike for all settings, half of that for all tasks."""
        if number not in self._seeds:
            shape = self.truth.shape
            common, own = self._scatter((*shape[:2], 1, shape[3])), self._scatter(shape)
            self._seeds[number] = self._scale * np.sqrt(0.5) * (common + own)
        return self._seeds[number]

    def items(self, difficulty: Array, settings: int) -> Array:
        """Items of this difficulty `[G, T, n]`, and how they suit the method and each of so many settings k: logits `[G, R, k, T, n]`."""
        for_method = difficulty + self._normal(difficulty.shape, SUITS_METHOD)
        shape = (difficulty.shape[0], self.truth.shape[1], settings, *difficulty.shape[1:])
        return for_method[:, None, None] + self._normal(shape, SUITS_SETTING)

    def answers(self, items: Array, trials: Array, seeds: tuple[int, ...], share: float = 1.0) -> Array:
        """Scores, 0 to 100, of students that are trained with the settings of some trials.

        Args:
            items: For each of these settings, `[G, R, k, T, n]`.
            trials: `[G, R, k]`, which settings.
            seeds: Of the training, S of them.
            share: Of the steps.

        Returns:
            `[G, R, k, S, T, n]`.
        """
        rho = dict(zip((0.25, 0.5, 1.0), (*self.scenario.early, 1.0), strict=True))[share]
        of_seeds = np.stack([taken(self.seed(number), trials) for number in seeds], axis=3)
        if rho < 1:
            scale = taken(self._scale, trials)[:, :, :, None]
            of_seeds = rho * of_seeds + np.sqrt(1 - rho**2) * scale * self._scatter(of_seeds.shape)
        centre = LEVEL + taken(self._effect[share], trials)[:, :, :, None] + of_seeds
        logits = centre[..., None].astype(np.float32) + items[:, :, :, None]
        logits += self._normal(logits.shape, REST)
        chances = 1 / (1 + np.exp(-logits))
        right = self.random.random(chances.shape, dtype=np.float32) < chances
        return np.float32(100) * np.where(BINARY[:, None], right, chances)

    def of_chosen(self, chosen: Array) -> Array:
        """The truth `[G, R, T]` of the settings of these trials `[G, R]`."""
        return taken(self.truth, chosen[..., None])[:, :, 0]

    def _scatter(self, shape: tuple[int, ...]) -> Array:
        """Normal draws `[..., T]`, half of whose variance is alike for all tasks."""
        alike, own = self.random.normal(size=(*shape[:-1], 1)), self.random.normal(size=shape)
        return np.sqrt(0.5) * (alike + own)

    def _normal(self, shape: tuple[int, ...], sd: float) -> Array:
        return np.float32(sd) * self.random.standard_normal(shape, dtype=np.float32)

    @staticmethod
    def _truth(at_end: Array, scale: Array) -> Array:
        return truth(LEVEL + at_end, _OTHERS + scale**2)


def taken(values: Array, trials: Array) -> Array:
    """Of values `[G, R, N, …]` those of some trials `[G, R, k]`."""
    if trials.shape == values.shape[:3] and (trials == np.arange(values.shape[2])).all():
        return values
    return np.take_along_axis(values, trials.reshape(trials.shape + (1,) * (values.ndim - 3)), axis=2)


def difficulties(scenario: Scenario, number: int, random: np.random.Generator) -> Array:
    """Of items that all methods answer: `[G, T, n]`."""
    return np.float32(ITEM) * random.standard_normal((scenario.draws, len(LEVEL), number), dtype=np.float32)


def worlds(scenario: Scenario, repeats: int, seed: int) -> Iterator[tuple[list[Method], np.random.Generator]]:
    """As many draws of methods as the repeats need; the same ones for all scenarios with as many options."""
    for number in range(max(1, math.ceil(repeats / scenario.draws))):
        random = np.random.default_rng([seed, number])
        yield [Method(scenario, random) for _ in range(scenario.methods)], random


def print_table(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Print dataclasses of one kind as a table in Markdown, and return their fields."""
    fields = [asdict(row) for row in rows]
    print("| " + " | ".join(name.replace("_", " ") for name in fields[0]) + " |\n|" + "---|" * len(fields[0]))
    for row in fields:
        shown = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()]
        print("| " + " | ".join(shown) + " |", flush=True)
    return fields
