"""What must hold between the models of a pair, their data and their tasks before anything is trained, as far as files say it.

Vocabularies: a model's head may have more rows than its tokenizer has tokens (padding), and added tokens may lie beyond the head (no
text-only model can predict them). A token of the trained vocabulary without a row is a mistake, and so is a method for one vocabulary
on a pair with two. Nothing is loaded here; what files do not say is checked again when the models are.

Prompts: a model with a template is given instructions, in training and in evaluation; one without is given texts as they are. So data
has to hold what its models take, tasks what they ask, and where both are whole texts their endings are compared: a student that
learned to answer after "### Response:" is not to be asked by "Answer:".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from dskd.compatibility import RoleDifference, check
from dskd.data.options import DataOptions
from dskd.data.reading import rows_of
from dskd.data.shapes import Example, read_row
from dskd.errors import InputError
from dskd.io import read_object
from dskd.methods import Method
from dskd.tokenization.tokenizer_files import FileVocabulary, role_tokens, same_vocabulary, vocabulary
from harness import tasks as known_tasks
from harness.config.matrix import Cell
from harness.config.selection import cells_with_tasks
from harness.config.sources import FileData
from harness.planning.expand import Expansion
from harness.planning.served import gives_text_alone
from harness.steps.base import ModelInput
from harness.steps.tokenizers import TokenizerFiles

log = logging.getLogger(__name__)

# So many prompts are compared: enough for what they share to be their frame and no accident.
COMPARED = 200
_LETTERS = 3  # an ending with fewer letters is no frame


# --- vocabularies ---


def check_vocabularies(expansion: Expansion, cells: Iterable[Cell]) -> None:
    """InputError for the first pair of these cells whose vocabularies do not suit its heads or its methods."""
    pairs: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        for teacher in expansion.matrix.members(cell.teacher) if cell.student is not None else ():
            pairs.setdefault((teacher, str(cell.student)), {}).setdefault(cell.method, cell)
    for (teacher, student), by_method in pairs.items():
        if gives_text_alone(expansion.model(teacher)):
            continue
        first = next(iter(by_method.values()))
        check_pair(
            expansion.model(teacher),
            expansion.model(student),
            [expansion.method(name)[0] for name in by_method],
            lambda key, cell=first: expansion.where_of(cell, key),  # type: ignore[misc]
        )
        for cell in by_method.values():
            check_frozen(expansion.frozen(cell), expansion.model(student), expansion.where_of_reference(cell))


def check_frozen(frozen: ModelInput | None, student: ModelInput, where: str) -> None:
    """InputError, which begins with `where`, where a method's reference model has not the student's vocabulary."""
    if frozen is not None and not _same(frozen, student):
        named = _described({"reference": frozen, "student": student})
        raise InputError(f"{where}: {named} have two vocabularies; fix: name a model with the student's tokenizer")


def check_pair(
    teacher: ModelInput, student: ModelInput, methods: Sequence[Method], where: Callable[[str], str]
) -> None:
    """InputError where a pair's vocabularies do not suit its heads or one of the methods that the student is trained by.

    It begins with `where` of its key (`dskd.compatibility.Problem`).
    """
    models = {"teacher": teacher, "student": student}
    strict = next((method for method in methods if method.requires.vocabulary == "same"), None)
    for role, model in models.items():
        rows = _rows(model)
        own = _vocabulary(model) if rows is not None else None
        beyond = [] if rows is None or own is None else [k for k in {*own.tokens.values()} - own.added if k >= rows]
        if beyond:
            raise InputError(
                f"{where('pair')}: {_described(models)}: {len(beyond):,} tokens of {role} '{model.name}' have no row in its "
                "head; fix: use the tokenizer that belongs to the model, or resize its embeddings"
            )
    same = _same(teacher, student)
    roles = _role_difference(teacher, student) if same else None
    if strict is not None and (roles or not same):
        pair = _described(models)
        pair += "" if same else _first_difference(_vocabulary(teacher), _vocabulary(student))
        for problem in check(strict, same_vocabulary=same, roles=roles, pair=pair):
            if problem.key == "method":
                raise InputError(problem.text(where(problem.key)))
    elif roles and roles.role == "eos":
        # Methods for any two vocabularies pair the ends by their role, so this works: but perhaps it was not meant.
        log.warning(
            "%s: %s have one vocabulary, but %s; the student learns its own end; template: chat for both ends both alike",
            where("pair"),
            _described(models),
            roles,
        )


def _rows(model: ModelInput) -> int | None:
    """How many rows its head has."""
    rows = model.text_config.get("vocab_size")
    return rows if isinstance(rows, int) else None


def _vocabulary(model: ModelInput) -> FileVocabulary | None:
    """None where a step has yet to make the tokenizer, or its files do not say."""
    tokenizer = model.tokenizer_input.vocabulary
    return vocabulary(tokenizer.folder) if isinstance(tokenizer, TokenizerFiles) else None


def _described(models: dict[str, ModelInput]) -> str:
    """`teacher 'gemma' (262,145 tokens, a head of 262,144 rows) and student …`."""
    described = []
    for role, model in models.items():
        size, rows = model.tokenizer_input.vocabulary.size, _rows(model)
        tokens = "tokens not counted" if size is None else f"{size:,} tokens"
        head = f", a head of {rows:,} rows" if rows is not None else ""
        described.append(f"{role} '{model.name}' ({tokens}{head})")
    return " and ".join(described)


def _same(teacher: ModelInput, student: ModelInput) -> bool:
    first, second = (model.tokenizer_input.vocabulary for model in (teacher, student))
    if first.fingerprint.hash == second.fingerprint.hash:
        return True
    if first.made_by and second.made_by:
        return False  # folders that steps make differ as their descriptions do
    if not isinstance(first, TokenizerFiles) or not isinstance(second, TokenizerFiles):
        return True
    return same_vocabulary(first.folder, second.folder) is not False


def _role_difference(teacher: ModelInput, student: ModelInput) -> RoleDifference | None:
    """The tokens by which two models with one vocabulary end or begin a text, where they differ and are known already.

    How a model with a chat template ends is not: its turn's end is found when the tokenizer is loaded.
    """
    if teacher.tokenizer_input.fingerprint.hash == student.tokenizer_input.fingerprint.hash:
        return None
    found = []
    for model in (teacher, student):
        tokenizer, template = model.tokenizer_input.vocabulary, model.prompt_template
        roles = role_tokens(tokenizer.folder) if isinstance(tokenizer, TokenizerFiles) else {}
        chat = template is not None and template.kind == "chat"
        found.append({role: token for role, token in roles.items() if role != "eos" or not chat})
    return RoleDifference.between(*found)


def _first_difference(teacher: FileVocabulary | None, student: FileVocabulary | None) -> str:
    """Where two vocabularies of one size part: their sizes alone would look like one vocabulary."""
    if teacher is None or student is None or teacher.size != student.size:
        return ""
    first, second = ({k: token for token, k in own.tokens.items()} for own in (teacher, student))
    k = min(k for k in range(teacher.size) if first.get(k) != second.get(k))
    return f" (id {k} is {first.get(k)!r} for the one and {second.get(k)!r} for the other)"


# --- prompts ---


def check_prompts(expansion: Expansion, cells: Sequence[Cell], tasks: Sequence[str]) -> None:
    """InputError, with the matrix and its key, for the first model, data set or task of these cells that do not go together."""
    matrix, of_cells = expansion.matrix, cells_with_tasks(expansion.matrix)
    wanted = set(tasks)

    def where(name: str) -> str:
        return expansion.where("models", name, "template")

    asked = [
        (teacher, cell.student, matrix.data_of(cell)) for cell in cells for teacher in matrix.members(cell.teacher)
    ]
    for teacher, student, data in dict.fromkeys(asked):
        if student is not None and not gives_text_alone(expansion.model(teacher)):
            check_templates(expansion.model(teacher), expansion.model(student), where)
            _check_data(expansion, teacher, data)
    for name in dict.fromkeys(model for names in asked for model in names[:2] if model is not None):
        check_chat(expansion.model(name), where(name))
    # The tasks of each model, by the data that it is distilled on: a teacher itself is not.
    asked_of: dict[tuple[str, str | None], dict[str, None]] = {}
    for cell in cells:
        own = asked_of.setdefault((cell.student or cell.teacher, matrix.data_of(cell) if cell.student else None), {})
        own.update(dict.fromkeys(task for task in of_cells.get(cell, ()) if task in wanted))
    students = {name for name, data in asked_of if data is not None}
    for (name, distilled_on), own in asked_of.items():
        if distilled_on is None and name in students:
            continue
        trained_on = [stage.data for stage in matrix.models[name].training]
        trained_on += [distilled_on] if distilled_on is not None else []
        for data in trained_on:
            _check_data(expansion, name, data)
        for task in own:
            _check_task(expansion, name, trained_on[-1] if trained_on else None, task)


def check_chat(model: ModelInput, where: str) -> None:
    """InputError, which begins with `where`, for the template `chat` on a tokenizer that has none."""
    template = model.prompt_template
    if template is None or template.kind != "chat":
        return
    tokenizer = model.tokenizer_input.vocabulary
    if isinstance(tokenizer, TokenizerFiles):
        settings = tokenizer.folder / "tokenizer_config.json"
        if (tokenizer.folder / "chat_template.jinja").is_file():
            return
        if settings.is_file() and read_object(settings).get("chat_template"):
            return
    raise InputError(
        f"{where}: chat, but its tokenizer has no chat template; fix: save one with the tokenizer (chat_template.jinja), "
        "or use alpaca"
    )


def check_templates(teacher: ModelInput, student: ModelInput, where: Callable[[str], str]) -> None:
    """InputError where one model of a pair has a prompt template and the other none; it begins with `where` of the latter's name."""
    have, lack = teacher, student
    if have.prompt_template is None:
        have, lack = lack, have
    if have.prompt_template is not None and lack.prompt_template is None:
        raise InputError(
            f"{where(lack.name)}: {have.name} has a prompt template and {lack.name} has none, so no data suits both; "
            f"fix: give {lack.name} one (alpaca or chat), or neither"
        )


def _check_data(expansion: Expansion, model: str, data: str) -> None:
    source, template = expansion.matrix.data[data], expansion.model(model).prompt_template
    if not isinstance(source, DataOptions):
        return  # both forms
    columns = source.columns or {}
    where = expansion.where("data", data)
    if template is not None and "prompt" in columns:
        raise InputError(
            f"{where}.prompt: makes whole prompts, but models.{model} has a template ({template.kind}), "
            "which is for instructions; give `instruction` instead of `prompt`"
        )
    if template is None and "instruction" in columns:
        raise InputError(
            f"{where}.instruction: makes instructions, but models.{model} has no template to put them "
            f"into; give models.{model}.template (alpaca or chat), or `prompt` instead of `instruction`"
        )
    chat = next((key for key in ("messages", "system", "reasoning", "tools") if getattr(source, key) is not None), None)
    if chat is not None and (template is None or template.kind != "chat"):
        has = "no template" if template is None else f"the template {template.kind}"
        raise InputError(
            f"{where}.{chat}: makes conversations, but models.{model} has {has}; give models.{model}.template: chat"
        )


def _check_task(expansion: Expansion, model: str, data: str | None, name: str) -> None:
    task = known_tasks.load(expansion.matrix.task_of(name))
    if isinstance(task, known_tasks.LogLikelihoodTask):
        return  # it asks nothing: its texts are scored as they are, whatever a model was trained to answer
    where = expansion.where("tasks", name)
    if expansion.model(model).prompt_template is not None:
        if not task.supports_chat:
            raise InputError(
                f"{where}: asks by prompts of its own alone, but models.{model} has a template; leave one of the two out"
            )
        return
    if data is None or expansion.matrix.tasks[name].other_prompts:
        return
    trained = _data_ending(expansion, data)
    if not has_frame(trained) and not task.data_files:
        return  # nothing to compare, and making documents takes a while
    asked = shared_ending(map(task.prompt, task.docs(COMPARED))) if task.data_is_here else ""  # planning asks no hub
    if endings_agree(trained, asked) is False:
        raise InputError(
            f"{where}: its prompts end with {asked[-40:]!r}, but {model} is trained on data.{data}, whose prompts end with "
            f"{trained[-40:]!r}; train on such prompts, give the models a template, or say other_prompts: true here"
        )


def _data_ending(expansion: Expansion, name: str) -> str:
    source = expansion.matrix.data[name]
    if not isinstance(source, FileData) or not Path(source.file).exists():
        return ""
    prompts: list[str] = []
    for where, row in islice(rows_of(Path(source.file)), COMPARED):
        try:
            item = read_row(row, where, "text", source.options)
        except InputError:
            return ""  # the check of the file names it
        prompts += [item.prompt] if isinstance(item, Example) and isinstance(item.prompt, str) else []
    return shared_ending(prompts)


def has_frame(ending: str) -> bool:
    """Whether what prompts end with is more than an accident."""
    return sum(map(str.isalpha, ending)) >= _LETTERS


def endings_agree(trained: str, asked: str) -> bool | None:
    """Whether prompts end as those of the training do; None where one of the two has no frame that could be compared."""
    if not has_frame(trained) or not has_frame(asked):
        return None
    return trained.endswith(asked) or asked.endswith(trained)


def shared_ending(texts: Iterable[str]) -> str:
    """What all of several texts end with."""
    found = [text[::-1] for text in texts]
    return os.path.commonprefix(found)[::-1] if len(found) > 1 else ""  # noqa: RUF071 - characters are what is compared
