"""How a matrix tunes its methods (docs/tuning.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from dskd.methods.space import Choice, Factor, Log, Range, Uniform
from harness.config.settings import TaskName
from harness.config.strict import Strict, VariantName
from harness.costs.work import PEAK_TFLOPS, UTILIZATION
from harness.protocols import Seed

TUNED = "tuned"  # what names of tuned methods end with: `kd+tuned`
SETTING = "setting"  # the axis on which they are, for `--only setting=tuned`
DEFAULT = "default"
TRIAL_SEED = 1_000_000  # added to the seed of the tuning, for the trainings of trials

_RANGES: Mapping[str, type[Uniform] | type[Log] | type[Factor]] = {"uniform": Uniform, "log": Log, "factor": Factor}
_FIX = (
    "write [VALUE, …], {uniform: [LOW, HIGH]}, {log: [LOW, HIGH]} or {factor: [LOW, HIGH]}; null leaves the option out"
)


class Budget(Strict):
    """What tuning may cost, for each method alike. Exactly one of `trials`, `tokens` and `seconds` is given.

    Attributes:
        trials: Settings that are tried, the default among them.
        tokens: Student tokens of all trials of a method.
        seconds: Of all trials of a method, estimated from shapes as `harness plan --estimate` does.
        tflops: The speed that seconds are estimated with, in TFLOP/s that a training reaches.
    """

    trials: int | None = Field(default=None, ge=1)
    tokens: float | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0)
    tflops: float = Field(default=PEAK_TFLOPS * UTILIZATION, gt=0)

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if sum(each is not None for each in (self.trials, self.tokens, self.seconds)) != 1:
            raise ValueError("give one of trials, tokens and seconds")
        return self

    @property
    def said(self) -> dict[str, Any]:
        """As a record has it."""
        return self.model_dump(exclude_none=True, exclude=set() if self.seconds is not None else {"tflops"})


def _range(value: Any) -> Any:
    """The range that a matrix writes."""
    if value is None or isinstance(value, Range):
        return value
    if isinstance(value, list) and value:
        return Choice(*value)
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, ends),) = value.items()
        numbers = isinstance(ends, list) and len(ends) == 2 and all(_is_number(end) for end in ends)
        if kind in _RANGES and numbers:
            return _RANGES[kind](*map(float, ends))
    raise ValueError(f"is no range; fix: {_FIX}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_Items = Annotated[int, Field(ge=1)]
# Tags in brackets, so that mistakes are named without them.
Limit = Annotated[
    Annotated[_Items, Tag("[items]")] | Annotated[dict[TaskName, _Items], Tag("[of-tasks]")],
    Discriminator(lambda value: "[of-tasks]" if isinstance(value, Mapping) else "[items]"),
]
TunedRange = Annotated[Any, BeforeValidator(_range)]


class Tuning(Strict):
    """Settings are tried on validation items, chosen, and trained anew with other seeds.

    Attributes:
        budget: For each method alike; a number is so many trials.
        halving: Whether all trials train a quarter of the steps, the better half goes on to half of them, and half of these to the end.
        seed: Of the settings that are tried, and of the trials' trainings.
        methods: The names in pairs that are tuned; all unless given.
        tasks: Whose validation items settings are chosen by; those of the matrix that have some unless given.
        limit: So many validation items of each task at most, or {task: items}, without a limit for tasks that it does not name.
        default: Whether the default settings are trained and evaluated beside the tuned ones.
        spaces: {name in pairs: {option: range}} in place of those that the method says; null for an option that is not tuned.
    """

    budget: Budget
    halving: bool = False
    seed: Seed = 0
    methods: list[VariantName] | None = Field(default=None, min_length=1)
    tasks: list[TaskName] | None = Field(default=None, min_length=1)
    limit: Limit | None = None
    default: bool = True
    spaces: dict[VariantName, dict[str, TunedRange]] = Field(default_factory=dict)

    @field_validator("budget", mode="before")
    @classmethod
    def _trials(cls, value: Any) -> Any:
        return {"trials": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("tasks")
    @classmethod
    def _without_suffix(cls, tasks: list[str] | None) -> list[str] | None:
        for name in tasks or ():
            if name.endswith(":validation"):
                raise ValueError(
                    f"{name}: validation items are taken anyway; fix: write {name.removesuffix(':validation')}"
                )
        return tasks

    def limit_of(self, task: str) -> int | None:
        """So many validation items of a task at most; None for all."""
        return self.limit.get(task) if isinstance(self.limit, dict) else self.limit

    @property
    def trial_seed(self) -> int:
        """The seed of the trials' trainings."""
        return TRIAL_SEED + self.seed


def base_name(name: str) -> str:
    """The name in pairs that a tuned name is made of; the name itself where it is not tuned."""
    return name.removesuffix(f"+{TUNED}")
