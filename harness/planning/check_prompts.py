"""What must hold between how models are trained to be asked and how tasks ask them, before anything is trained.

A model with a template is given instructions, in training and in evaluation; one without is given texts as they stand. So data has
to hold what its models take, tasks what they ask, and where both are whole texts their endings are compared: a student that
learned to answer after "### Response:" is not to be asked by "Answer:".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from dskd.errors import InputError
from dskd.io import read_object, read_objects
from harness import tasks as known_tasks
from harness.config.matrix import Cell, FileData
from harness.planning.expand import Expansion
from harness.steps.base import ModelInput
from harness.steps.tokenizers import TokenizerFiles

# So many prompts are compared: enough for what they share to be their frame and no accident.
_COMPARED = 200
_LETTERS = 3  # an ending with fewer letters is no frame


def check_prompts(expansion: Expansion, cells: Sequence[Cell], tasks: Sequence[str]) -> None:
    """InputError, with the matrix and its key, for the first model, data set or task of these cells that do not go together."""
    matrix = expansion.matrix
    for teacher, student in dict.fromkeys((cell.teacher, cell.student) for cell in cells if cell.student is not None):
        assert student is not None
        check_pair(
            expansion.model(teacher),
            expansion.model(student),
            lambda name: f"{expansion.source}: models.{name}.template",
        )
        _check_data(expansion, teacher, matrix.training.data)
    for name in dict.fromkeys(model for cell in cells for model in (cell.teacher, cell.student) if model is not None):
        check_chat(expansion.model(name), f"{expansion.source}: models.{name}.template")
    for name in dict.fromkeys(cell.student or cell.teacher for cell in cells):
        trained_on = [stage.data for stage in matrix.models[name].training]
        if any(cell.student == name for cell in cells):
            trained_on = [*trained_on, matrix.training.data]
        for data in trained_on:
            _check_data(expansion, name, data)
        for task in tasks:
            _check_task(expansion, name, trained_on[-1] if trained_on else None, task)


def check_chat(model: ModelInput, where: str) -> None:
    """InputError, which begins with `where`, for the template `chat` on a tokenizer that has none."""
    template, tokenizer = model.prompt_template, model.tokenizer_input.vocabulary
    if template is None or template.kind != "chat":
        return
    if isinstance(tokenizer, TokenizerFiles) and _has_chat_template(tokenizer.folder):
        return
    raise InputError(
        f"{where}: chat, but its tokenizer has no chat template; fix: save one with the tokenizer (chat_template.jinja), "
        "or use alpaca"
    )


def _has_chat_template(folder: Path) -> bool:
    settings = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (
        settings.is_file() and bool(read_object(settings).get("chat_template"))
    )


def check_pair(teacher: ModelInput, student: ModelInput, where: Callable[[str], str]) -> None:
    """InputError where one model of a pair has a prompt template and the other none; it begins with `where` of the latter's name."""
    have = [model.name for model in (teacher, student) if model.prompt_template is not None]
    lack = [model.name for model in (teacher, student) if model.prompt_template is None]
    if have and lack:
        raise InputError(
            f"{where(lack[0])}: {have[0]} has a prompt template and {lack[0]} has none, so no data suits both; "
            f"fix: give {lack[0]} one (alpaca or chat), or neither"
        )


def _check_data(expansion: Expansion, model: str, data: str) -> None:
    source = expansion.matrix.data[data]
    if not isinstance(source, FileData) or source.columns is None:
        return  # both forms, or lines that are read before anything runs
    template = expansion.model(model).prompt_template
    if template is not None and "prompt" in source.columns:
        raise InputError(
            f"{expansion.source}: data.{data}.prompt: makes whole prompts, but models.{model} has a template ({template.kind}), "
            "which is for instructions; give `instruction` instead of `prompt`"
        )
    if template is None and "instruction" in source.columns:
        raise InputError(
            f"{expansion.source}: data.{data}.instruction: makes instructions, but models.{model} has no template to put them "
            f"into; give models.{model}.template (alpaca or chat), or `prompt` instead of `instruction`"
        )


def _check_task(expansion: Expansion, model: str, data: str | None, name: str) -> None:
    task = known_tasks.load(expansion.matrix.task_of(name))
    where = f"{expansion.source}: tasks.{name}"
    if expansion.model(model).prompt_template is not None:
        if not task.supports_chat:
            raise InputError(
                f"{where}: asks by prompts of its own alone, but models.{model} has a template; leave one of the two out"
            )
        return
    if data is None or expansion.matrix.tasks[name].other_prompts:
        return
    trained, asked = _data_ending(expansion, data), _task_ending(task)
    if _is_frame(trained) and _is_frame(asked) and not (trained.endswith(asked) or asked.endswith(trained)):
        raise InputError(
            f"{where}: its prompts end with {asked[-40:]!r}, but {model} is trained on data.{data}, whose prompts end with "
            f"{trained[-40:]!r}; train on such prompts, give the models a template, or say other_prompts: true here"
        )


def _data_ending(expansion: Expansion, name: str) -> str:
    source = expansion.matrix.data[name]
    if not isinstance(source, FileData) or not Path(source.file).is_file():
        return ""
    frame = (source.columns or {}).get("prompt")
    rows = [row for _, row in islice(read_objects(Path(source.file)), _COMPARED)]
    if frame is None:
        return _ending(str(row["prompt"]) for row in rows if "prompt" in row)
    try:
        return _ending(frame.format_map(row) for row in rows)
    except KeyError:
        return ""  # a line lacks a column: the check of the file names it


def _task_ending(task: known_tasks.Task) -> str:
    if not task.data_is_here:
        return ""  # planning asks no hub
    docs = task.docs(_COMPARED)
    return _ending(task.prompt(doc) for doc in docs)


def _ending(texts: Iterable[str]) -> str:
    """What all of several texts end with."""
    found = [text[::-1] for text in texts]
    return os.path.commonprefix(found)[::-1] if len(found) > 1 else ""  # noqa: RUF071 - characters are what is compared


def _is_frame(ending: str) -> bool:
    return sum(character.isalpha() for character in ending) >= _LETTERS
