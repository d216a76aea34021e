"""A draft as the text of a matrix file, each choice with its reason in a comment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from dskd.data.hub_rows import parse_hub_data
from dskd.data.options import DataOptions
from dskd.errors import InputError
from dskd.hub.names import MAIN
from harness.costs.work import UTILIZATION
from harness.draft.machine import Machine
from harness.draft.pair import DraftedPair, FittingMethods
from harness.draft.sample import DraftedData, DraftedLengths
from harness.draft.tasks import DraftedTask
from harness.draft.training import EXAMPLES_A_STEP, DraftedTraining

_WIDTH = 100


@dataclass(frozen=True)
class Draft:
    """All that a drafted matrix says."""

    name: str
    pair: DraftedPair
    data: DraftedData
    lengths: DraftedLengths
    training: DraftedTraining
    machine: Machine
    fitting: FittingMethods
    methods: Sequence[str]
    tasks: Sequence[DraftedTask]
    seeds: Sequence[int]

    def with_choices(self, methods: Sequence[str], tasks: Sequence[str], seeds: Sequence[int]) -> Draft:
        """The same with what a user chose of it."""
        kept = [task for task in self.tasks if task.name in tasks]
        return replace(self, methods=methods, tasks=kept, seeds=seeds)


def matrix_text(draft: Draft) -> str:
    """The text of the file."""
    parts = [
        "schema_version: 1\n",
        f"name: {_value(draft.name)}\n\n",
        *_data(draft),
        *_models(draft),
        *_pairs(draft),
        *_training(draft),
        *_tasks(draft),
    ]
    return "".join(parts)


def _data(draft: Draft) -> list[str]:
    data = draft.data
    given = {**_place(data.given), **_said(data.options)}
    seen = [f"{data.examples:,} examples that can be used."]
    if data.left_out.total:
        seen.append(f"Left out: {data.left_out}.")
    if reasons := draft.lengths.left_out:
        named = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in reasons.items())
        seen.append(f"Of {draft.lengths.sampled:,} sampled, these models cannot be trained on: {named}.")
    return [_comment(" ".join(seen)), "data:\n", f"  examples: {_value(given)}\n\n"]


def _place(given: str) -> dict[str, Any]:
    """The keys that say where a training set is."""
    named = parse_hub_data(given)
    if named is None:
        return {"file": given}
    asked = {"hub": named.name.repo, "config": named.configuration, "split": named.split}
    revision = named.name.revision if named.name.revision != MAIN else None
    return {key: value for key, value in (asked | {"revision": revision}).items() if value is not None}


def _said(options: DataOptions) -> dict[str, Any]:
    fields = DataOptions.model_fields.items()
    return {name: getattr(options, name) for name, field in fields if getattr(options, name) != field.default}


def _models(draft: Draft) -> list[str]:
    lines = [_comment(f"Template: {draft.data.template or 'none'}, because {draft.data.why}."), "models:\n"]
    for model in draft.pair.models:
        settings = {"path": model.given} | ({"template": draft.data.template} if draft.data.template else {})
        size = f"{_millions(model.shape.parameters)} parameters, " if model.shape is not None else ""
        lines += [f"  {_value(model.name)}: {_value(settings)}", _beside(f"{size}{model.vocabulary.size:,} tokens")]
    return [*lines, "\n"]


def _pairs(draft: Draft) -> list[str]:
    pair, fitting = draft.pair, draft.fitting
    which = "one vocabulary" if pair.same_vocabulary else "two vocabularies"
    said = [f"{which.capitalize()}: {pair.shared_tokens:,} tokens in common."]
    others = [name for name in (*fitting.suggested, *fitting.others) if name not in draft.methods]
    said.append(f"Methods that fit as well: {', '.join(others) or 'none'}.")
    if fitting.on_policy:
        said.append(f"With rollouts and teacher_outputs live: {', '.join(fitting.on_policy)}.")
    said.append("`harness show-method NAME` has their options.")
    written = {"teacher": pair.teacher.name, "student": pair.student.name, "methods": list(draft.methods)}
    return [_comment(" ".join(said)), "pairs:\n", f"  - {_value(written)}\n\n"]


def _training(draft: Draft) -> list[str]:
    lengths, training, machine = draft.lengths, draft.training, draft.machine
    taken = "its memory is not known, as a model's shape is not" if training.bytes is None else _size(training.bytes)
    room = f"{machine.device}: {_size(machine.memory)} for each of {machine.jobs} jobs at once"
    reasons = {
        "epochs": f"{training.steps:,} steps of {EXAMPLES_A_STEP} examples",
        "batch_size": f"estimated memory: {taken}; {room}" + ("" if training.fits else "; IT DOES NOT FIT"),
        "gradient_checkpointing": "activations are computed twice, for less memory",
        "lora": "an adapter, because all weights with their optimizer do not fit",
        "learning_rate": "by the student's size; the first option to tune",
        "max_length": f"keeps {lengths.kept:.1%} of {lengths.sampled:,} sampled examples; the longest has {lengths.longest:,} tokens"
        + ("; a model reads no more" if lengths.room is not None else ""),
        "dtype": "of the teacher and of products; the student's weights stay float32",
    }
    lines = ["training:\n  data: examples\n"]
    for name, value in training.options.items():
        lines += [f"  {name}: {_value(value)}", _beside(reasons[name]) if name in reasons else "\n"]
    if not training.fits:
        lines.append("# Several GPUs share a student: launch: {accelerate_config: fsdp2-1x8} (docs/processes.md).\n")
    size = (
        f"a cache of hidden states would take {_size(training.cache)}"
        if training.cache is not None
        else "size not known"
    )
    cached = {
        "hidden_states": f"the teacher runs once for all trainings; {size}, of {_size(machine.disk)} that are free",
        "live": f"the teacher runs in every training; {size}, and {_size(machine.disk)} are free",
    }
    outputs = training.teacher_outputs
    lines += [f"teacher_outputs: {_value({'kind': outputs})}", _beside(cached[outputs])]
    seeds = (
        "several, because one says nothing about a method" if len(draft.seeds) > 1 else "one: more to compare methods"
    )
    return [*lines, f"seeds: {_value(list(draft.seeds))}", _beside(seeds), "\n"]


def _tasks(draft: Draft) -> list[str]:
    if not draft.tasks:
        why = "No task's data is here that would fit; `harness data verify` lists them. {} trains without evaluating."
        return [_comment(why), "tasks: {}\n"]
    allowed = [task for task in draft.tasks if not task.runs_code]
    lines = [_comment("Tasks whose data is here."), "tasks:\n" if allowed else "tasks: {}\n"]
    for task in draft.tasks:
        settings: dict[str, Any] = {"other_prompts": True} if task.other_prompts else {}
        settings |= {} if task.limit is None else {"limit": task.limit}
        reasons = ["asks in other words than the students are trained on"] if task.other_prompts else []
        reasons += ["the first items alone, as this machine has no GPU"] if task.limit is not None else []
        reasons += ["runs what a model writes: harness run --allow-code-execution"] if task.runs_code else []
        start = "  # " if task.runs_code else "  "
        lines += [f"{start}{task.name}: {_value(settings)}", _beside("; ".join(reasons)) if reasons else "\n"]
    if not draft.machine.has_gpu:
        return lines
    return [*lines, "evaluation: {dtype: bfloat16}\n"]


def disk_needed(draft: Draft) -> str:
    """What the trainings leave on the disk, in a sentence; nothing where the student's shape is not known."""
    shape, students = draft.pair.student.shape, len(draft.methods) * len(draft.seeds)
    if shape is None:
        return ""
    weights, cached = 4.0 * shape.parameters, draft.training.teacher_outputs == "hidden_states"
    cache = draft.training.cache if cached and draft.training.cache is not None else 0.0
    # Two checkpoints, each of weights and Adam's moments.
    passing = 2 * 3 * weights * min(draft.machine.jobs, students)
    short = " MORE THAN IS FREE:" if students * weights + cache + passing > draft.machine.disk else ""
    return (
        f"Disk:{short} {_size(students * weights)} for {students} students"
        + (f", {_size(cache)} for the teacher cache" if cache else "")
        + f", and up to {_size(passing)} for checkpoints while they train; {_size(draft.machine.disk)} are free"
    )


def assumed(machine: Machine) -> str:
    """What an estimate of time rests on, in a sentence."""
    return (
        f"{machine.tflops:.2g} TFLOP/s measured on {machine.device} in a product of matrices, of which a training is taken to "
        f"reach {UTILIZATION:.0%}"
    )


# --- YAML ---


def _value(value: Any) -> str:
    """A value on one line; names and paths may hold anything. `${…}` would be a variable, which a path cannot be."""
    if isinstance(value, str) and re.search(r"\$\{", value):
        raise InputError(f"{value}: holds ${{, which a matrix takes for a variable; fix: rename it, or link to it")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) is not None
    if plain and yaml.safe_load(value) == value:
        return value
    return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10**9).strip()


def _beside(text: str) -> str:
    return f" # {_line(text)}\n"


def _comment(text: str) -> str:
    lines, line = [], "#"
    for word in _line(text).split():
        if len(line) + len(word) >= _WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return "\n".join([*lines, line]) + "\n"


def _line(text: str) -> str:
    """Text from elsewhere in a comment: no line end, and nothing that looks like a variable."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).replace("${", "$ {")


def _millions(number: int) -> str:
    return f"{number / 1e6:,.0f} M" if number >= 1e7 else f"{number / 1e6:.1f} M"


def _size(number: float) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
