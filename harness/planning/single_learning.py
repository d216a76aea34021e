"""What the command line says of one training: the method, how it is trained, what the student learns from, and who writes the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from dskd import methods
from dskd.compatibility import LIVE, check, check_text, rules_of
from dskd.errors import InputError
from dskd.text import Text
from dskd.training.options import TrainingOptions
from harness.config.explain import dotted, explain
from harness.config.names import find_method, notice_former_names
from harness.config.settings import TeacherOutputs
from harness.config.texts import TAUGHT, named_method, options_of_taught, taught_text

_O = TypeVar("_O", bound=BaseModel)
# The flag of the command line that a problem is about. Every other training option is one of --set.
_FLAGS = {
    "teacher_outputs.kind": "--teacher-outputs",
    "teacher": "--teacher",
    "method": "--method",
    "pair": "--teacher and --student",
    "text": "--text",
    "training": "training options",
} | {
    f"training.{name}": f"--{name.replace('_', '-')}"
    for name in ("steps", "epochs", "batch_size", "batch_tokens", "packing", "learning_rate", "max_length", "dtype")
}


class Learning(NamedTuple):
    """The method by its name and as it is, how it is trained, what it learns from, and who writes the text; None: the data."""

    name: str
    method: methods.Method
    options: TrainingOptions
    outputs: TeacherOutputs
    text: Text | None


def flag_of(key: str) -> str:
    return _FLAGS.get(key, f"--set {key.removeprefix('training.')}")


def read_learning(
    name: str,
    method_options: Mapping[str, Any],
    training: Mapping[str, Any],
    teacher_outputs: Mapping[str, Any],
    given_text: Any,
    *,
    has_teacher: bool,
    served: bool,
) -> Learning:
    """The method, how it is trained, and what the student learns from, which go together."""
    text = _text(given_text)
    name = named_method(name, text)
    learned = find_method(name, "--method")
    try:
        if text is not None and (rollouts := text.rollouts(training.get("rollouts"))) != training.get("rollouts"):
            training = {**training, "rollouts": rollouts}
        if name == TAUGHT and (text is None or text.only == "teacher"):
            text = taught_text(text, method_options)
            method_options = options_of_taught(text, method_options)
    except InputError as error:
        raise InputError(f"--text: {error}") from None
    _checked(learned.Options, method_options, lambda key: f"--option {key}", "--option ")
    method = learned(dict(method_options))
    options = _checked(
        TrainingOptions, training, lambda key: flag_of(f"training.{key}") if key else "training options", "--set "
    )
    if not has_teacher and (method.requires.teacher or method.requires.response_source == "teacher"):
        raise InputError(f"--method {name}: needs a teacher; fix: give --teacher DIR")
    if not has_teacher and text is not None and text.only != "data":
        raise InputError(f"--text {text.label}: needs a teacher; fix: give --teacher DIR")
    outputs = _teacher_outputs(method, teacher_outputs)
    for problem in check_text(method, text) if text is not None else ():
        raise InputError(problem.text(flag_of(problem.key)))
    known = rules_of(outputs.options, served=served) | {
        "rollouts": options.rollouts,
        "packing": options.packing is True,
    }
    for problem in check(method, **known):
        raise InputError(problem.text(flag_of(problem.key)))
    return Learning(name, method, options, outputs, text)


def _text(given: Any) -> Text | None:
    """Who writes the text, of `--text`."""
    if given is None:
        return None
    try:
        return Text.model_validate(given)
    except ValidationError as error:
        raise InputError(explain(error, lambda key: f"--text {dotted(key)}".rstrip(), Text)) from None


def _checked(options: type[_O], given: Mapping[str, Any], flag: Callable[[str], str], former: str) -> _O:
    """Options as they were given; `flag` says by which flag a key was, `former` what goes before a former name."""
    notice_former_names(options, given, former)
    try:
        return options.model_validate(dict(given))
    except ValidationError as error:
        raise InputError(explain(error, lambda key: flag(dotted(key)), options)) from None


def _teacher_outputs(method: methods.Method, given: Mapping[str, Any]) -> TeacherOutputs:
    """What the student learns from; top-k probabilities are kept at the method's temperature."""
    settings = {"kind": LIVE, **given}
    if settings["kind"] == LIVE or not method.requires.teacher:
        if len(settings) > 1:
            raise InputError(
                "--cache-dtype and --top-k belong to a teacher cache; fix: add --teacher-outputs hidden_states or top_k"
            )
        return TeacherOutputs(kind="live")
    if settings["kind"] == "top_k":
        settings["temperature"] = getattr(method.options, "temperature", 1.0)
    elif "k" in settings:
        raise InputError("--top-k: belongs to --teacher-outputs top_k; fix: leave it out")
    return TeacherOutputs.model_validate(settings)
