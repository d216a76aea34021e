"""Two models as a draft needs them: tokenizers, vocabularies, shapes and chat templates. No weights are read."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dskd import hub
from dskd.compatibility import LIVE, check, rules_of
from dskd.errors import InputError
from dskd.methods import METHODS
from dskd.modeling.loading import load_tokenizer, require_model_folder
from dskd.rollouts.options import RolloutOptions
from dskd.tokenization.prompt_templates import Template, set_template, template_of
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from harness.costs.model_shapes import Shape
from harness.steps.base_model import ModelFolder
from harness.steps.tokenizers import TokenizerFiles

_LONGEST_NAME = 60


@dataclass(frozen=True)
class DraftedModel:
    """One of the two models.

    Attributes:
        given: Its folder or its name on the hub, as the user gave it.
        name: What the matrix calls it.
        shape: None where its configuration does not say it.
        positions: The most tokens that it reads.
        template: The one that its folder has already.
        chat: Why its chat template cannot be used; empty where it can.
    """

    given: str
    name: str
    tokenizer: Any
    vocabulary: Vocabulary
    shape: Shape | None
    positions: int | None
    template: Template | None
    chat: str


@dataclass(frozen=True)
class DraftedPair:
    """A teacher and a student, and what their vocabularies have in common: tokens of the same bytes."""

    teacher: DraftedModel
    student: DraftedModel
    same_vocabulary: bool
    shared_tokens: int

    @property
    def models(self) -> tuple[DraftedModel, DraftedModel]:
        """Teacher and student."""
        return self.teacher, self.student

    @property
    def chat(self) -> str:
        """Why the two cannot both be asked in their chat templates; empty where they can."""
        return "; ".join(f"{model.name} {model.chat}" for model in self.models if model.chat)


def look_at_pair(teacher: str, student: str) -> DraftedPair:
    """Read the small files of two models. InputError for what is no model, and for two that share no token."""
    first, second = _look_at(teacher, "teacher"), _look_at(student, "student")
    if first.name == second.name:
        first, second = replace(first, name="teacher"), replace(second, name="student")
    return _pair(first, second)


def with_template(pair: DraftedPair, kind: str | None) -> DraftedPair:
    """The pair with both tokenizers given a template; None leaves them. Two ends of sequence may become one: that of a turn."""
    if kind is None:
        return pair
    models = []
    for model in pair.models:
        tokenizer = copy.deepcopy(model.tokenizer)
        set_template(tokenizer, Template.model_validate({"kind": kind}))
        models.append(replace(model, tokenizer=tokenizer, vocabulary=Vocabulary.from_tokenizer(tokenizer)))
    return _pair(*models)


def _pair(teacher: DraftedModel, student: DraftedModel) -> DraftedPair:
    shared = share_vocabulary(teacher.vocabulary, student.vocabulary)
    both = sum(teacher.vocabulary.tokens[k] is not None for k in shared.teacher_ids.tolist())
    if not both:
        raise InputError(
            f"--teacher {teacher.given} and --student {student.given}: share no token; "
            "fix: use a student whose tokenizer covers the same text"
        )
    return DraftedPair(teacher, student, shared.same, both)


def _look_at(given: str, side: str) -> DraftedModel:
    try:
        name = hub.parse(given)
        folder = Path(given) if name is None else hub.settings(name.repo, hub.resolve(name.repo, name.revision))
        require_model_folder(folder)
        tokenizer = load_tokenizer(folder)
        files = ModelFolder(
            name=side, folder=folder.resolve(), files={}, tokenizer=TokenizerFiles(folder=folder.resolve(), files={})
        )
        config = files.text_config
        vocabulary = Vocabulary.from_tokenizer(tokenizer)
    except InputError as error:
        raise InputError(f"--{side} {given}: {error}") from None
    try:
        shape: Shape | None = files.shape
    except InputError:  # of a kind that is not known; then nothing of its cost is
        shape = None
    positions = next((config[key] for key in ("max_position_embeddings", "n_positions") if config.get(key)), None)
    return DraftedModel(
        given=given,
        name=_name(given, side),
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        shape=shape,
        positions=positions,
        template=template_of(tokenizer),
        chat=_why_no_chat(tokenizer),
    )


def _name(given: str, side: str) -> str:
    """A name for a matrix: the last part of a path or of a name on the hub."""
    parsed = hub.parse(given)
    last = parsed.short if parsed is not None else Path(given).resolve().name
    name = re.sub(r"[._-]{2,}", "-", re.sub(r"[^A-Za-z0-9._-]", "-", last)).strip("._-")[:_LONGEST_NAME].strip("._-")
    return name or side


def _why_no_chat(tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        return "has no chat template"
    try:
        set_template(copy.deepcopy(tokenizer), Template(kind="chat"))
    except InputError as error:
        reason = str(error).partition("; fix: ")[0].rpartition(f"{tokenizer.name_or_path}: ")[2]
        return f"has a chat template that cannot be used: {reason}"
    return ""


@dataclass(frozen=True)
class FittingMethods:
    """The methods that a pair can be trained by: those that are suggested, the others, and those that need rollouts."""

    suggested: list[str]
    others: list[str]
    on_policy: list[str]


def fitting_methods(pair: DraftedPair, teacher_outputs: str = LIVE) -> FittingMethods:
    """The methods that fit a pair, by the rules of training itself.

    Args:
        pair: The pair.
        teacher_outputs: `live` or the kind of a cache.
    """
    known: dict[str, Any] = {"same_vocabulary": pair.same_vocabulary, "shared_tokens": pair.shared_tokens}
    written = RolloutOptions.model_validate({"share": 1.0})
    fit, on_policy = [], []
    for name, cls in sorted(METHODS.items()):
        method = cls({})
        if not check(method, **rules_of({"kind": teacher_outputs}), **known):
            fit.append(name)
        elif method.requires.on_policy == "always" and not check(method, rollouts=written, **known):
            on_policy.append(name)
    wanted = ("sft", "kd", "dskd-v2") if pair.same_vocabulary else ("sft", "uld", "dskd-v2-eta")
    suggested = [name for name in wanted if name in fit]
    return FittingMethods(suggested, [name for name in fit if name not in suggested], on_policy)
