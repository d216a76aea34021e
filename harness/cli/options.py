"""Options that several commands share. Their callbacks check and convert, so that a function gets what planning takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

import harness.engines
from dskd.errors import InputError
from dskd.options import MAX_SEED
from harness.protocols import PROTOCOLS

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
COUNT = click.IntRange(min=1)
SEED = click.IntRange(min=0, max=MAX_SEED)
DTYPE = click.Choice(["float32", "bfloat16", "float16"])


class RenamedOption(click.Option):
    """An option whose last name is the one that it had before: still taken, but not shown."""

    def get_help_record(self, context: click.Context) -> tuple[str, str] | None:
        names, self.opts = self.opts, self.opts[:-1]
        try:
            return super().get_help_record(context)
        finally:
            self.opts = names


def _group(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _known_engine(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        harness.engines.check(value, "--engine")
    return value


def _known_protocol(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value not in PROTOCOLS:
        raise InputError(f"--protocol {value}: no such protocol; fix: one of {', '.join(PROTOCOLS)}")
    return value


def _variables(_context: click.Context, _parameter: click.Parameter, assignments: Sequence[str]) -> dict[str, str]:
    """`--set NAME=VALUE` as a dictionary. HARNESS_DATA also goes into the environment, where tasks and jobs look for it."""
    values = dict(split_assignment(text, "--set") for text in assignments)
    if "HARNESS_DATA" in values:
        os.environ["HARNESS_DATA"] = values["HARNESS_DATA"]
    return values


def _sandbox_into_environment(_context: click.Context, _parameter: click.Parameter, value: str | bool | None) -> None:
    if value is True:
        value = "none" if os.environ.get("HARNESS_SANDBOX", "auto") == "auto" else None
    if value:
        os.environ["HARNESS_SANDBOX"] = value


_ENGINE: dict[str, Any] = {
    "metavar": "NAME", "callback": _known_engine, "help": "Generation engine: auto, vllm, transformers or file.py:Class.",
}  # fmt: skip
_SET_HELP = "Value of ${NAME} in the matrix file; repeatable. Default: the environment variable."
_ARGUMENT_HELP = "Argument of the chat template, as enable_thinking=false; repeatable."
_REASONING_HELP = (
    "What becomes of the reasoning before an answer: left out, kept as context, or trained on. [default: train if the chat "
    "template's prompts ask for reasoning, else cut]"
)
_ADD_HELP = "Additional method for every pair that it suits: a name or file.py:Class; repeatable (docs/own-method.md)."
_ONLY_HELP = (
    "Only cells with this teacher, student, method, seed, task, data or value of an axis; a group or a pattern, too. "
    "Repeatable: values of one key are alternatives."
)
_SKIP_HELP = "All cells but those with this key; repeatable. The keys and values of --only."
_OVERWRITE_HELP = (
    "What to run again: nothing; what failed; also what has other settings now; everything. Missing and interrupted jobs run "
    "in any case."
)
_SANDBOX_HELP = (
    "What isolates that code. auto: the first of namespaces and bubblewrap that passes its self-test; none: where neither "
    "does, limits alone, with network and files within the code's reach."
)
_VERIFY_HELP = (
    "Read every model and data file again, and compare it with the hash that is remembered: exit code 2 where a file's bytes "
    "changed though its size and time did not (docs/run-folders.md)."
)
_OVERWRITE = click.Choice(["never", "failed", "stale", "always"])
_SANDBOX = click.Choice(["auto", "namespaces", "bubblewrap", "docker", "podman", "none"])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
variables_option = click.option(
    "--set", "variables", multiple=True, metavar="NAME=VALUE", callback=_variables, help=_SET_HELP
)
engine_option = click.option("--engine", **_ENGINE)
# The keyword arguments of `harness.planning.plan.make_plan`.
matrix_options = _group(
    click.option(
        "--matrix", "matrix_name", required=True, metavar="NAME|FILE", help="Matrix: a shipped one by name, or a file."
    ),
    variables_option,
    click.option("--add-method", "add_methods", multiple=True, metavar="NAME", help=_ADD_HELP),
    click.option("--only", multiple=True, metavar="KEY=VALUE", help=_ONLY_HELP),
    click.option("--skip", multiple=True, metavar="KEY=VALUE", help=_SKIP_HELP),
    click.option("--limit", type=COUNT, metavar="N", help="Evaluate on the first N items of each task."),
    engine_option,
    click.option("--output-dir", type=PATH, metavar="DIR", help="Output directory. [default: runs/NAME of the matrix]"),
    click.option("--overwrite", type=_OVERWRITE, default="stale", show_default=True, help=_OVERWRITE_HELP),
    click.option("--verify", is_flag=True, help=_VERIFY_HELP),
)
MODEL = "DIR|ORG/NAME[@REVISION]"
model_option = click.option(
    "--model", required=True, type=PATH, metavar=MODEL, help="An ordinary model folder, or a name on the hub."
)
batch_size_option = click.option(
    "--max-batch-size", type=COUNT, metavar="N", help="Maximum number of completions that are generated at once."
)
# How a model completes prompts.
generation_options = _group(
    click.option(
        "--max-new-tokens", type=COUNT, metavar="N", help="Maximum new tokens. [default: the protocol's or the task's]"
    ),
    click.option(
        "--max-reasoning-tokens",
        type=COUNT,
        metavar="N",
        help="Maximum tokens of reasoning, for a model that reasons before its --max-new-tokens (docs/reasoning.md).",
    ),
    click.option(
        "--reasoning-end",
        type=click.Choice(["cut", "close"]),
        help="Reasoning at that limit: cut, no answer (the default), or close: its end is written for the model, which answers.",
    ),
    click.option(
        "--protocol",
        default="greedy",
        show_default=True,
        metavar="NAME",
        callback=_known_protocol,
        help="Decoding protocol; `harness list protocols` has the names.",
    ),
    click.option("--engine", default="auto", show_default=True, **_ENGINE),
    click.option("--dtype", default="float32", show_default=True, type=DTYPE, help="Dtype of the weights."),
    batch_size_option,
    click.option("--seed", default=0, show_default=True, type=SEED, help="Sampling seed."),
)
# The prompt template of a model.
template_options = _group(
    click.option(
        "--template",
        type=click.Choice(["alpaca", "chat"]),
        help="Prompt template: Alpaca's, or each model's own chat template.",
    ),
    click.option("--system", metavar="TEXT", help="System message of conversations that have none."),
    click.option("--template-argument", "arguments", multiple=True, metavar="NAME=VALUE", help=_ARGUMENT_HELP),
    click.option("--reasoning", type=click.Choice(["cut", "keep", "train"]), help=_REASONING_HELP),
)
# Whether generated code may run, and in which sandbox. The sandbox goes into the environment, which jobs inherit.
_sandbox_setting: dict[str, Any] = {"expose_value": False, "callback": _sandbox_into_environment}
sandbox_options = _group(
    click.option("--allow-code-execution", is_flag=True, help="Let tasks execute model-generated code, in a sandbox."),
    click.option("--sandbox", type=_SANDBOX, help=_SANDBOX_HELP, **_sandbox_setting),
    # What `--sandbox none` was before.
    click.option("--allow-unsandboxed", is_flag=True, hidden=True, **_sandbox_setting),
)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def template_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of `template_options` out of `options`, and return them as `template` of a matrix has them."""
    names = {"kind": "template", "system": "system", "reasoning": "reasoning"}
    settings = given(**{key: options.pop(name) for key, name in names.items()})
    if arguments := options.pop("arguments"):
        settings["arguments"] = read_settings(arguments, "--template-argument")
    return settings


def read_settings(assignments: Sequence[str], option: str, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Assignments as nested settings: `a.b=1` becomes `{"a": {"b": 1}}`. Values are YAML; `flags` are settings of other flags."""
    settings: dict[str, Any] = dict(flags or {})
    for assignment in assignments:
        key, value = split_assignment(assignment, option)
        *groups, name = key.split(".")
        place = settings
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise InputError(f"{option} {key}: {group} has a value of its own; fix: leave out one of the two")
        if name in place:
            raise InputError(f"{option} {key}: is given twice; fix: leave out one of the two")
        place[name] = read_yaml(value)
    return settings


def read_yaml(value: str | None) -> Any:
    """A value as YAML reads it; as text where it is none."""
    try:
        return None if value is None else yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def split_assignment(text: str, option: str) -> tuple[str, str]:
    """Key and value of `key=value`. InputError without a key or `=`."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise InputError(f"{option} {text}: has no name or no value; fix: write NAME=VALUE")
    return key, value
