"""Which methods, teacher outputs, texts and vocabularies go together. Each rule is here once, for training and for planning.

Nothing here imports torch. Training raises the first problem; planning puts its file before the key, a command line its flag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from dskd.errors import InputError
from dskd.methods import METHODS, StepStatistics
from dskd.methods.base import reads_step_statistics
from dskd.modeling.vllm_support import INSTALL
from dskd.teachers.options import TeacherOutputKind
from dskd.text import AUTHORS, Author, Text, names_of

if TYPE_CHECKING:
    from dskd.methods import Method, Requirements
    from dskd.rollouts.options import RolloutOptions

LIVE: Literal["live"] = "live"
# Where a training has the teacher's outputs from: a model that runs in it, a cache, a server.
OutputSource = Literal["live", "cache", "served"]
# A teacher that runs in the training gives hidden states, from which all else follows.
_SOURCES: dict[TeacherOutputKind, tuple[OutputSource, ...]] = {
    "hidden_states": (LIVE, "cache", "served"),
    "top_k": ("cache", "served"),
    "text_log_probabilities": ("cache", "served"),
}
SERVED_TEMPERATURE = 1.0  # of the log-probabilities that servers give


@dataclass(frozen=True)
class Problem:
    """One reason why settings do not go together."""

    key: str  # the setting at fault as a matrix has it, such as `training.rollouts`; or `method`, `teacher`, `pair`
    message: str  # what is wrong, without the key
    fix: str

    def text(self, where: str) -> str:
        """The error as one line that begins with `where`."""
        return f"{where}: {self.message}; fix: {self.fix}"


@dataclass(frozen=True)
class RoleDifference:
    """One vocabulary, of which teacher and student use two tokens in one role: a base and an instruct model have two ends."""

    role: Literal["eos", "bos"]
    teacher: str  # the token and its id, as a message names them
    student: str

    def __str__(self) -> str:
        does = {"eos": "ends", "bos": "begins"}[self.role]
        return f"the teacher {does} a text with {self.teacher} and the student with {self.student}"

    @classmethod
    def between(
        cls, teacher: Mapping[str, tuple[str, int]], student: Mapping[str, tuple[str, int]]
    ) -> RoleDifference | None:
        """The first role in which these tokens, with their ids, differ; None for roles of which one is not known."""
        for role in ("eos", "bos"):
            first, second = teacher.get(role), student.get(role)
            if first is not None and second is not None and first != second:
                return cls(role, *(f"{token!r} (id {k})" for token, k in (first, second)))
        return None


def rules_of(outputs: Mapping[str, Any], *, served: bool = False) -> dict[str, Any]:
    """What `check` is told of teacher outputs as a matrix has them: `{kind: live}`, `{kind: top_k, live: true}`, or those of a cache.

    served: Whether the teacher is behind an address.
    """
    live = outputs["kind"] == LIVE or bool(outputs.get("live"))
    return {
        "teacher_outputs": "hidden_states" if outputs["kind"] == LIVE else outputs["kind"],
        "source": ("served" if served else LIVE) if live else "cache",
        "top_k_temperature": None if live else outputs.get("temperature"),
    }


@dataclass(frozen=True)
class Learning:
    """A kind of teacher outputs that a method can learn from, where from, and the options that this takes; "" for none."""

    kind: TeacherOutputKind
    sources: tuple[OutputSource, ...]
    options: str = ""


def learning_of(requires: Requirements) -> list[Learning]:
    """All that a method can learn from; the first is the default."""
    if not requires.teacher:
        return []
    kinds = [*((kind, "") for kind in requires.teacher_outputs), *requires.outputs_with_options.items()]
    return [Learning(kind, (LIVE,) if requires.padded_hidden else _SOURCES[kind], options) for kind, options in kinds]


def require(problems: list[Problem]) -> None:
    """Raises InputError for the first problem."""
    for problem in problems:
        raise InputError(problem.text(problem.key.removeprefix("training.")))


def check(
    method: Method,
    *,
    teacher_outputs: str = "hidden_states",
    source: OutputSource = LIVE,
    top_k_temperature: float | None = None,
    rollouts: RolloutOptions | None = None,
    packing: bool = False,
    has_teacher: bool = True,
    same_vocabulary: bool | None = None,
    shared_tokens: int | None = None,
    roles: RoleDifference | None = None,
    pair: str = "teacher and student",
) -> list[Problem]:
    """What stops a method from learning with these settings, in the order in which to report it.

    `teacher_outputs` is their kind, and `source` where they come from. `same_vocabulary`, and the number of `shared_tokens` (special tokens
    not counted), are None where they are not known. `roles` says by which tokens the two end
    or begin a text, where these differ in one vocabulary. `pair` is how messages name the two models.
    """
    problems = list(_of_rollouts(method, rollouts, source))
    if method.requires.teacher and not has_teacher:
        problems.append(Problem("teacher", f"{method.name} needs a teacher", "give one, or use sft"))
    if method.requires.teacher:
        problems += _of_teacher_outputs(method, teacher_outputs, source, top_k_temperature, packing=packing)
    if method.requires.vocabulary == "same" and (same_vocabulary is False or roles is not None):
        problems.append(_of_vocabularies(method, pair, roles))
    if method.requires.teacher and shared_tokens == 0:
        problems.append(Problem("pair", f"{pair} share no token", "use a student whose tokenizer covers the same text"))
    return problems


def texts_of(method: Method | type[Method]) -> list[Author]:
    """Who may write the text that a method learns from, in the order of `AUTHORS`."""
    requires = method.requires
    if requires.response_source == "teacher":
        return ["teacher"]
    prepared = requires.on_policy != "always"
    optional = requires.teacher and requires.on_policy == "optional" and requires.pairing != "own"
    sampled = optional or requires.on_policy == "always"
    able = {"data": prepared, "teacher": prepared, "student": sampled}
    return [author for author in AUTHORS if able[author]]


def check_text(method: Method, text: Text) -> list[Problem]:
    """What stops a method from learning from such text."""
    able = texts_of(method)
    wrong = [author for author in text.shares if author not in able]
    if not wrong:
        return []
    can = _methods(lambda m: all(author in texts_of(m) for author in text.shares))
    fix = f"text: {able[0]}" if len(able) == 1 else f"give it {names_of(able)}"
    fix += f", or use what can learn from this: {can}" if can != "none" else ""
    return [Problem("text", f"{method.name} cannot learn from {names_of(wrong)} text", fix)]


def check_several(method: Method) -> list[Problem]:
    """What stops a method from learning from several teachers, beside what stops it from learning from each."""
    problems = []
    if reads_step_statistics(method) or method.requires.teacher_mix_in_alpha:
        alone = f"{method.name} compares the texts of a step by what one teacher says of all of them"
        instead = method.instead if isinstance(method, StepStatistics) else StepStatistics.instead
        problems.append(Problem("teachers", alone, f"give one teacher, or {instead}"))
    if method.requires.reference:
        alone = f"{method.name} reads a reference model, which is there once"
        problems.append(Problem("teachers", alone, "give one teacher, or use another method"))
    if method.requires.on_policy == "always" and not method.requires.teacher:
        alone = f"{method.name} writes text that no teacher is asked about"
        problems.append(Problem("teachers", alone, "give one teacher, whose data is taken"))
    if method.requires.padded_hidden:
        alone = f"{method.name} reads the prompts and the padding of one teacher's batch"
        problems.append(Problem("teachers", alone, "give one teacher, or set upstream_parity to false"))
    return problems


def _of_vocabularies(method: Method, pair: str, roles: RoleDifference | None) -> Problem:
    fix = f"use a method for any two: {_methods(lambda m: m.requires.vocabulary == 'any')}"
    if roles is None:
        return Problem("method", f"{method.name} needs one vocabulary, but {pair} have different ones", fix)
    if roles.role == "eos":
        fix = f"give both models template: chat, in which both end with a turn's end, or {fix}"
    return Problem("method", f"{method.name} needs one vocabulary, used alike; {pair}: {roles}", fix)


def _of_rollouts(method: Method, rollouts: RolloutOptions | None, source: OutputSource) -> Iterator[Problem]:
    key, name, always = "training.rollouts", method.name, method.requires.on_policy == "always"
    alone = f"{name} learns from on-policy text alone"
    if rollouts is None:
        if always:
            yield Problem(key, alone, "rollouts: {share: 1}, and teacher_outputs: {kind: live}")
        return
    if method.requires.on_policy == "never":
        able = _methods(lambda m: m.requires.on_policy != "never")
        yield Problem(key, f"{name} learns from the data's text alone", f"remove rollouts, or use {able}")
    elif not method.requires.teacher and not always:
        yield Problem(key, f"{name} has no teacher to judge rollouts", "remove rollouts, or distil")
    if always and (rollouts.share < 1 or rollouts.start_epoch > 0):
        yield Problem(key, alone, "set share to 1 and start_epoch to 0")
    if always and rollouts.replay is not None:
        yield Problem(f"{key}.replay", f"{name} learns from what the student writes as it is now", "remove replay")
    own = getattr(method.options, "temperature", 1.0)
    if always and method.requires.exact_sampling and (rollouts.temperature != own or rollouts.top_p != 1.0):
        fix = (
            "set temperature and top_p to 1"
            if own == 1.0
            else f"set temperature to {own:g}, the method's, and top_p to 1"
        )
        yield Problem(key, f"{name} needs text that has the probability it is sampled with", fix)
    if rollouts.staleness and method.requires.written_statistics != "none" and own != 1.0:
        yield Problem(
            f"{key}.staleness",
            f"{name} weighs text that is older than the step by its log-probabilities, which are known at temperature 1 alone",
            f"set temperature of {name} and of rollouts to 1, or remove staleness",
        )
    if source == "cache":
        yield Problem(
            key, "a cached teacher cannot judge text that is not written yet", "teacher_outputs: {kind: live}"
        )
    if source == "served" and method.requires.teacher_mix_in_alpha:
        yield Problem(
            key,
            f"{name} samples from the teacher too, which a served one does not do token by token",
            "use a teacher that runs in the training, or set teacher_mix to 0",
        )
    if rollouts.engine == "vllm" and method.requires.teacher_mix_in_alpha:
        yield Problem(
            f"{key}.engine", f"{name} samples from the teacher too, which vllm does not", "set it to transformers"
        )
    if method.requires.pairing == "own":
        yield Problem(key, f"{name} pairs the tokens of prepared examples, which rollouts are not", "remove rollouts")


def _of_teacher_outputs(
    method: Method, kind: str, source: OutputSource, top_k_temperature: float | None, *, packing: bool
) -> Iterator[Problem]:
    key, name = "teacher_outputs.kind", method.name
    if source == "served" and kind == "top_k":
        top_k_temperature = SERVED_TEMPERATURE
    if kind not in method.requires.teacher_outputs:
        options = next((able.options for able in learning_of(method.requires) if able.kind == kind), "")
        able = _methods(lambda m: any(kind == found.kind for found in learning_of(m.requires)))
        fix = f"set {options}" if options else f"only the methods that can ({able})"
        yield Problem(key, f"{name} cannot learn from {kind}", f"kind: {method.requires.teacher_outputs[0]}, or {fix}")
    elif kind == "top_k" and top_k_temperature is not None and top_k_temperature != method.options.temperature:
        own = f"{method.options.temperature:g}"
        at = f"the distributions are at temperature {top_k_temperature:g}, but {name} compares them at {own}"
        fix = f"temperature: {own}, here or in the method's options"
        if source == "served":
            fix = f"set temperature of {name} to {top_k_temperature:g}: a server gives the distributions at no other"
        yield Problem("teacher_outputs.temperature", at, fix)
    if source == LIVE and kind != "hidden_states":
        yield Problem(
            key, f"a teacher that runs in the training gives hidden states, not {kind}", "kind: live, or a cache"
        )
    if method.requires.padded_hidden:
        needs = f"{name} needs the teacher's prompt and padding"
        if source != LIVE:
            yield Problem(key, f"{needs}, which no cache and no server has", "kind: live")
        if packing:
            yield Problem("training.packing", f"{needs}, which packed rows do not have", "packing: false")


def _methods(suits: Callable[[type[Method]], bool]) -> str:
    return ", ".join(sorted(name for name, method in METHODS.items() if suits(method))) or "none"


def missing_engine(rollouts: RolloutOptions | None) -> list[Problem]:
    """The engine of the rollouts, where it is not installed."""
    if rollouts is None or rollouts.engine != "vllm" or find_spec("vllm") is not None:
        return []
    return [Problem("training.rollouts.engine", "vLLM is not installed", f"set it to transformers, or {INSTALL}")]
