"""What a step is: its inputs, identity, outputs, checks, cost and work, all in one class.

A kind of step is one file with a subclass of `Step`. Its fields say what it is made of:

- a field that holds another `Input` is an input. Order, sharing and identity follow from it: the jobs of a run are the closure of
  the wanted steps over their inputs.
- `Annotated[..., NOT_IDENTITY]` marks a field on which the output cannot depend (a path, a title, the number of GPUs).
- `Annotated[..., Key("name")]` gives a field another key in the identity; `Annotated[..., OMIT_NONE]` leaves it out where it is None;
  `Annotated[..., INLINE]` puts the parts of an input among those of the step.
- `Annotated[..., BY_HAND]` marks a field that the class's own `identity_parts` adds in a form of its own.

A job is told nothing but its step as JSON, so any job can run anywhere, be killed, and be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, SerializeAsAny, model_serializer, model_validator
from pydantic.functional_serializers import SerializerFunctionWrapHandler

from dskd.compatibility import Problem
from dskd.errors import InputError
from dskd.options import Options
from dskd.plugins import class_at, code_hash, is_from_file, reference_to
from dskd.tokenization.prompt_templates import Template
from harness.costs.model_shapes import Shape
from harness.costs.resources import Resources
from harness.costs.work import Device, Work
from harness.runs.identity import Fingerprint
from harness.runs.job_context import JobContext
from harness.runs.job_spec import Output
from harness.runs.store import artifact_folder


@dataclass(frozen=True, eq=False)  # `Annotated` takes equal marks for one: NOT_IDENTITY and BY_HAND must differ
class Key:
    """The key of a field in an identity; None for a field that is no part of it.

    Marks of two meanings must differ in value too: `Annotated[T, a]` is `Annotated[T, b]` where a equals b.
    """

    name: str | None
    omit_none: bool = False
    inline: bool = False
    by_hand: bool = False


NOT_IDENTITY = Key(None)
BY_HAND = Key(None, by_hand=True)
OMIT_NONE = Key("", omit_none=True)
INLINE = Key("", inline=True)

_TYPE = "type"  # in JSON: the class of an input


class Input(BaseModel):
    """Something that a step reads: files of the user's, or what another step makes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    _keys: ClassVar[dict[str, Key]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        marked = {name: [m for m in field.metadata if isinstance(m, Key)] for name, field in cls.model_fields.items()}
        cls._keys = {name: keys[0] if keys else Key(name) for name, keys in marked.items()}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other fields, without what was computed from the old ones."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | dict(update or {}))

    @model_serializer(mode="wrap")
    def _with_type(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {_TYPE: reference_to(type(self)), **handler(self)}

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_type(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """From JSON, the class that the JSON names."""
        if not isinstance(value, dict) or _TYPE not in value:
            return handler(value)
        named = class_at(value[_TYPE])
        fields = {name: item for name, item in value.items() if name != _TYPE}
        return handler(fields) if named is cls else named.model_validate(fields)

    def path(self, root: Path) -> Path:
        """Where it is, in a run's folder `root` or elsewhere."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What it is made of."""
        return Fingerprint.of(self.identity_parts())

    def identity_parts(self) -> dict[str, Any]:
        """The parts of its identity: its fields, with inputs as their fingerprints."""
        parts: dict[str, Any] = {}
        for name, key in self._keys.items():
            value = getattr(self, name)
            if key.inline:
                parts |= value.identity_parts()
            elif key.name is not None and not (key.omit_none and value is None):
                parts[key.name or name] = _identity_of(value)
        return parts

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """Its direct inputs, in the order of its fields."""
        return tuple(_inputs_in(getattr(self, name) for name in type(self).model_fields))

    @cached_property
    def needs(self) -> tuple[Step, ...]:
        """The steps that make its inputs."""
        return tuple({step.id: step for each in self.inputs for step in each.made_by}.values())

    @property
    def made_by(self) -> tuple[Step, ...]:
        """The steps that have to run before it can be read."""
        return self.needs

    def __hash__(self) -> int:
        return hash(self.fingerprint.text)

    def __eq__(self, other: object) -> bool:
        text = self.fingerprint.text
        return isinstance(other, Input) and type(other) is type(self) and other.fingerprint.text == text


_FINGERPRINTS: dict[int, tuple[BaseModel, Fingerprint]] = {}


def _identity_of(value: Any) -> Any:
    if isinstance(value, Input):
        return value.fingerprint
    if isinstance(value, BaseModel):
        # Many steps share one object of options.
        if id(value) not in _FINGERPRINTS:
            parts = value.identity() if isinstance(value, Options) else value.model_dump()
            _FINGERPRINTS[id(value)] = value, Fingerprint.of(parts)
        return _FINGERPRINTS[id(value)][1]
    return [_identity_of(item) for item in value] if isinstance(value, (list, tuple)) else value


def _inputs_in(values: Iterable[Any]) -> Iterator[Input]:
    for value in values:
        if isinstance(value, Input):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _inputs_in(value)


_I = TypeVar("_I", bound=Input)
_V = TypeVar("_V")
# A field of a step that holds an input of this class or of a subclass.
Of = SerializeAsAny[_I]


def same_as(place: str) -> Any:
    """A property that has the value of another one, `student.shape`."""
    return property(attrgetter(place))


class Step(Input):
    """A unit of work that makes one folder, or several.

    Class attributes: `kind` as plans and records name it; `version`, raised when outputs change although inputs do not; `place`,
    the folder under `artifacts/`; `product`, the file or folder in an output without which no other step can use it; `splits_batches`,
    whether it can compute in less memory with the same result, by `JobSpec.split_batches`.
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    place: ClassVar[str]
    product: ClassVar[str | None] = None
    splits_batches: ClassVar[bool] = False  # of a training, by its settings

    title: Annotated[str, NOT_IDENTITY] = ""

    def identity_parts(self) -> dict[str, Any]:
        own = {"step_code": code_hash(type(self))} if is_from_file(type(self)) else {}
        return {"code": self.version, **own, **super().identity_parts()}

    @cached_property
    def id(self) -> str:
        """Unique within a run."""
        return f"{self.kind}:{self.fingerprint.short}"

    @property
    def folder(self) -> str:
        """The folder of its log and lock under the root of the run, and of its output where it makes one."""
        return artifact_folder(self.place, self.fingerprint)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """The folders that it makes."""
        return (Output(self.folder, self.fingerprint, product=self.product),)

    def path(self, root: Path) -> Path:
        return root / self.folder / (self.product or "")

    @property
    def made_by(self) -> tuple[Step, ...]:
        return (self,)

    @property
    def is_target(self) -> bool:
        """Whether it is wanted for itself, and not only where another step reads it."""
        return any(output.cell is not None for output in self.outputs)

    @property
    def reaches(self) -> dict[str, tuple[str, ...]]:
        """The addresses that it needs while it runs, by the model that is behind them; none for most steps."""
        return {}

    @property
    def loads(self) -> Sequence[ModelInput]:
        """The models that it loads by transformers, which has to know their quantisation; not those of which it reads less."""
        return ()

    def problems(self) -> Sequence[Problem]:
        """What is wrong with it as far as settings say."""
        return ()

    def preflight(self, root: Path) -> Sequence[Problem]:
        """Check what only the user's files say, before anything of a run is written.

        Args:
            root: the folder of the run; what lies in it is made by steps and is no mistake of the user's.

        Returns:
            Problems that have a key.

        Raises:
            InputError: for a file that the step could not use.
        """
        return ()

    def estimate(self, device: Device) -> list[Work]:
        """Its cost from shapes alone, nothing where it is small."""
        return []

    @property
    def libraries(self) -> tuple[str, ...]:
        """Modules that take seconds to import and that it uses, so that one process can load them for many jobs; none where it is light."""
        return ()

    def resources(self) -> Resources:
        """What it needs while it runs, estimated: by default what is taken where nothing is known, and no GPU."""
        return Resources()

    def run(self, job: JobContext) -> None:
        """Make the outputs in `job.pending`, and declare each finished with `job.finish`."""
        raise NotImplementedError


def if_known(find: Callable[[], _V]) -> _V | None:
    """A shape or a size of data, or None where it cannot be known before a run: resources are a guess then, and not an error."""
    try:
        return find()
    except InputError:
        return None


def kinds_of_steps(step: type[Step] = Step) -> set[str]:
    """The kinds of all steps that were imported."""
    own = {step.kind} if "kind" in vars(step) else set()
    return own.union(*(kinds_of_steps(each) for each in step.__subclasses__()))


def closure(steps: Iterable[Step]) -> dict[str, Step]:
    """These steps and all that they need, by id, each after what it needs."""
    found: dict[str, Step] = {}

    def add(step: Step) -> None:
        if step.id not in found:
            for need in step.needs:
                add(need)
            found.setdefault(step.id, step)

    for step in steps:
        add(step)
    return found


class ModelInput(Input):
    """A model that a step reads; what is known of it before it is made."""

    name: Annotated[str, NOT_IDENTITY] = ""

    @property
    def tokenizer_input(self) -> TokenizerInput:
        """Its tokenizer."""
        raise NotImplementedError

    @property
    def prompt_template(self) -> Template | None:
        """How it is asked: the matrix's template, or that of its folder."""
        return self.tokenizer_input.prompt_template

    @property
    def text_config(self) -> dict[str, Any]:
        """The configuration of its text part, as far as it is known."""
        return {}

    @property
    def shape(self) -> Shape:
        """What its size follows from. InputError where that is not known."""
        raise InputError(f"models.{self.name}: its configuration does not say its shape; fix: leave out --estimate")

    @property
    def lineage(self) -> list[TrainingSource]:
        """The data that it was trained on."""
        return [TrainingSource(None, reason=f"what {self.name} was trained on is not known here")]

    @property
    def teacher_lineage(self) -> list[TrainingSource]:
        """The data behind the teacher that it learned from, none without one."""
        return []


class TokenizerInput(Input):
    """A tokenizer that a step reads."""

    @property
    def vocabulary(self) -> TokenizerInput:
        """A tokenizer with the same vocabulary, though it may begin texts in another way."""
        return self

    @property
    def prompt_template(self) -> Template | None:
        """The template that its folder names; None where there is none, or where the folder is not made yet."""
        return None

    @property
    def size(self) -> int | None:
        """How many tokens it has; None where that is not known."""
        return None

    @property
    def bytes_per_token(self) -> float | None:
        """How long its tokens are, for estimates; None where that depends on the text alone."""
        return None


@dataclass(frozen=True)
class TrainingSource:
    """A training set behind a model: its name in the matrix and its examples; or a reason why it is not known."""

    data: str | None
    examples: Input | None = None
    limit: int | None = None
    reason: str | None = None
