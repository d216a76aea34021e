"""The cells of a matrix, and the part of them that is asked for: `include`, `exclude`, `--only`, `--skip`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from dskd.errors import InputError
from harness.config.cells import TEACHER_METHOD, Cell
from harness.config.matrix import Matrix
from harness.config.partial import KEYS, as_text
from harness.suggestions import did_you_mean

# {key: names}; what has one of the names of each key is meant.
Chosen = Mapping[str, Collection[str]]


def names_of(matrix: Matrix) -> dict[str, list[str]]:
    """The names that each key may have in this matrix, its axes included."""
    named = matrix.named
    methods = [m for pair in matrix.pairs for m in pair.methods] + [cell.method for cell in matrix.include]
    found: dict[str, dict[str, None]] = {key: {} for key in KEYS}
    found["teacher"] = dict.fromkeys(each.teacher for each in named)
    found["student"] = dict.fromkeys(each.student for each in named)
    found["student"] |= dict.fromkeys(matrix.trained_name(each.student, each.data) for each in named)
    found["method"] = {**dict.fromkeys(methods), **dict.fromkeys(map(_base, methods)), TEACHER_METHOD: None}
    seeds = [*matrix.seeds, *(cell.seed for cell in matrix.include if cell.seed is not None)]
    found["seed"] = dict.fromkeys(map(str, seeds))
    found["task"] = dict.fromkeys(matrix.tasks)
    found["data"] = dict.fromkeys(each.data or matrix.training.data for each in named)
    for method in methods:
        for axis, value in matrix.axes_of(method).items():
            found.setdefault(axis, {})[value] = None
    return {key: list(names) for key, names in found.items()}


def _base(method: str) -> str:
    """A method without the values of axes that it is combined with."""
    return method.partition("+")[0]


def chosen_names(key: str, text: str, names: Collection[str], groups: Mapping[str, Sequence[str]]) -> set[str]:
    """The names that a text means: a name, a number written another way, a group, or those that fit a shell pattern.

    Raises:
        InputError: `no such KEY; did you mean …`, without a place.
    """
    for name in (text, as_text(text)):
        if name in names:
            return {name}
    if text in groups:
        if found := set(groups[text]) & set(names):
            return found
        raise InputError(f"no {key} in the group '{text}'; known: {', '.join(sorted(names))}")
    if any(sign in text for sign in "*?["):
        if found := {name for name in names if fnmatchcase(name, text)}:
            return found
        raise InputError(f"no {key} that fits '{text}'; known: {', '.join(sorted(names))}")
    raise InputError(f"no such {key}{did_you_mean(text, [*names, *groups])}")


class Labels:
    """What each cell of a matrix is called under each key."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix
        self._made: dict[tuple[str, str | None, str, str], dict[str, tuple[str, ...]]] = {}

    def __call__(self, cell: Cell) -> dict[str, tuple[str, ...]]:
        """{key: the names that the cell has}; a teacher itself has no student, seed and data."""
        key = (cell.teacher, cell.student, cell.method, cell.data)
        if key not in self._made:
            self._made[key] = self._without_seed(cell)
        shared = self._made[key]
        return shared if cell.seed is None else {**shared, "seed": (str(cell.seed),)}

    def _without_seed(self, cell: Cell) -> dict[str, tuple[str, ...]]:
        if cell.student is None:
            return {"teacher": (cell.teacher,), "method": (TEACHER_METHOD,)}
        axes = {axis: (value,) for axis, value in self._matrix.axes_of(cell.method).items()}
        return {
            "teacher": (cell.teacher,),
            "student": (cell.student, str(cell.trained)),
            "method": (cell.method, _base(cell.method)),
            "data": (self._matrix.data_of(cell),),
            **axes,
        }


def _fits(chosen: Chosen, labels: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a cell has one of the names of each key, the task aside."""
    return all(key == "task" or any(name in names for name in labels.get(key, ())) for key, names in chosen.items())


def cells_with_tasks(matrix: Matrix) -> dict[Cell, list[str]]:
    """Every cell of a matrix and the tasks that it is evaluated on.

    First the teachers that can be scored, once each, while one of their students is left; then pair by pair, method by method,
    seed by seed; then what `include` adds. What `exclude` names is left out; it holds names, as `with_rules` leaves it.
    """
    trained: dict[Cell, list[str]] = {}
    every = list(matrix.tasks)
    for pair in matrix.pairs:
        data = matrix.other_data(pair.data)
        for method in pair.methods:
            for seed in matrix.seeds:
                trained[Cell(pair.teacher, pair.student, method, seed, data)] = every
    for cell, tasks in _included(matrix).items():
        trained.setdefault(cell, tasks)
    if not matrix.exclude:
        return {**dict.fromkeys(_teachers(matrix, trained), every), **trained}
    kept = _without(matrix, trained, matrix.exclude)
    teachers = _without(matrix, dict.fromkeys(_teachers(matrix, kept), every), matrix.exclude)
    return {**teachers, **kept}


def cells(matrix: Matrix) -> list[Cell]:
    """Every cell of a matrix, in the order of `cells_with_tasks`."""
    return list(cells_with_tasks(matrix))


def _included(matrix: Matrix) -> dict[Cell, list[str]]:
    found: dict[Cell, list[str]] = {}
    for entry in matrix.include:
        for seed in matrix.seeds if entry.seed is None else [entry.seed]:
            cell = Cell(entry.teacher, entry.student, entry.method, seed, matrix.other_data(entry.data))
            wanted = list(matrix.tasks) if entry.task is None else [entry.task]
            found[cell] = [task for task in matrix.tasks if task in {*found.get(cell, ()), *wanted}]
    return found


def _teachers(matrix: Matrix, trained: Iterable[Cell]) -> list[Cell]:
    """The cells of the teachers themselves that some students are left of."""
    if not matrix.evaluation.score_teachers:
        return []
    left = {member for teacher in {cell.teacher for cell in trained} for member in matrix.members(teacher)}
    return [Cell(name, None, TEACHER_METHOD, None) for name in matrix.scored_teachers if name in left]


def _without(matrix: Matrix, found: dict[Cell, list[str]], rules: Sequence[Chosen]) -> dict[Cell, list[str]]:
    """Cells and tasks without those that a rule fits: whole cells, or where a rule names tasks, these."""
    labels = Labels(matrix)
    kept: dict[Cell, list[str]] = {}
    for cell, tasks in found.items():
        own = labels(cell)
        fitting = [rule for rule in rules if _fits(rule, own)]
        if all("task" in rule for rule in fitting):
            left_out = {task for rule in fitting for task in rule["task"]}
            kept[cell] = [task for task in tasks if task not in left_out] if left_out else tasks
    return kept


def with_rules(matrix: Matrix, where: Callable[[Sequence[object]], str]) -> Matrix:
    """The matrix with names in place of the groups and patterns of `exclude`.

    Raises:
        InputError: for an entry of `include` that adds nothing, one of `exclude` that fits nothing, and where nothing is left.
    """
    plain = matrix.model_copy(update={"exclude": []})
    _check_included(matrix, where)
    if not matrix.exclude:
        return matrix
    names, labels = names_of(matrix), Labels(matrix)
    everything = cells_with_tasks(plain)
    rules: list[dict[str, tuple[str, ...]]] = []
    for index, entry in enumerate(matrix.exclude):
        rule: dict[str, tuple[str, ...]] = {}
        for key, texts in entry.items():
            if key not in names:
                raise InputError(f"{where(('exclude', index, key))}: unknown key{did_you_mean(key, names)}")
            try:
                found = [name for text in texts for name in chosen_names(key, text, names[key], matrix.groups)]
            except InputError as error:
                raise InputError(f"{where(('exclude', index, key))}: {error}") from None
            rule[key] = tuple(sorted(found))
        fitting = [tasks for cell, tasks in everything.items() if _fits(rule, labels(cell))]
        if not (any(set(rule["task"]) & set(tasks) for tasks in fitting) if "task" in rule else fitting):
            raise InputError(
                f"{where(('exclude', index))}: no cell has all of these; fix: leave out a key, or the entry"
            )
        rules.append(rule)
    exact = matrix.model_copy(update={"exclude": rules})
    if not any(cell.student is not None for cell in cells_with_tasks(exact)):
        raise InputError(f"{where(('exclude',))}: leaves no student to train; fix: leave out an entry")
    return exact


def _check_included(matrix: Matrix, where: Callable[[Sequence[object]], str]) -> None:
    plain = cells_with_tasks(matrix.model_copy(update={"exclude": [], "include": []})) if matrix.include else {}
    for index, added in enumerate(matrix.include):
        if added.task is not None and added.task not in matrix.tasks:
            raise InputError(
                f"{where(('include', index, 'task'))}: no such task{did_you_mean(added.task, matrix.tasks)}"
            )
        alone = _included(matrix.model_copy(update={"include": [added]}))
        if all(cell in plain for cell in alone):
            raise InputError(f"{where(('include', index))}: adds nothing to `pairs` and `seeds`; fix: leave it out")


def select(matrix: Matrix, only: Sequence[str], source: str, skip: Sequence[str] = ()) -> tuple[list[Cell], list[str]]:
    """The cells and tasks that `--only key=value` and `--skip key=value` leave.

    Several values of one key of `only` are alternatives; what one of `skip` fits is left out. A teacher's own cell stays while one
    of its students does, unless methods are chosen: then it stays where `teacher` is among them.

    Raises:
        InputError: for a key or a value that the matrix does not have, and where nothing is left.
    """
    names = names_of(matrix)
    wanted = _wanted("--only", only, names, matrix, source)
    rules = [{key: found} for text in skip for key, found in _wanted("--skip", [text], names, matrix, source).items()]
    tasks = [task for task in matrix.tasks if task in wanted.pop("task", matrix.tasks)]
    tasks = [task for task in tasks if not any(task in rule.get("task", ()) for rule in rules)]
    rules = [rule for rule in rules if "task" not in rule]
    labels = Labels(matrix)
    left = [cell for cell in cells_with_tasks(matrix) if not any(_fits(rule, labels(cell)) for rule in rules)]
    # A teacher has neither student nor seed nor axes. Its students are asked for, by whatever method.
    asked = {key: found for key, found in wanted.items() if key in {"teacher", "student", "data"}}
    teaching = {cell.teacher for cell in left if cell.student is not None and _fits(asked, labels(cell))}
    taught = {member for teacher in teaching for member in matrix.members(teacher)}
    chosen = [
        cell
        for cell in left
        if (
            cell.teacher in taught and TEACHER_METHOD in wanted.get("method", {TEACHER_METHOD})
            if cell.student is None
            else _fits(wanted, labels(cell))
        )
    ]
    given = " ".join([*(f"--only {text}" for text in only), *(f"--skip {text}" for text in skip)])
    if not chosen:
        raise InputError(f"{given}: no cell of {source} has all of these; fix: leave one out")
    if matrix.tasks and not tasks:
        raise InputError(f"{given}: no task of {source} is left; fix: leave one out")
    return chosen, tasks


def _wanted(
    option: str, texts: Sequence[str], names: Mapping[str, Collection[str]], matrix: Matrix, source: str
) -> dict[str, set[str]]:
    wanted: dict[str, set[str]] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or key not in names:
            raise InputError(f"{option} {text}: is no key=value; fix: use one of the keys {', '.join(names)}")
        try:
            wanted.setdefault(key, set()).update(chosen_names(key, value, names[key], matrix.groups))
        except InputError as error:
            raise InputError(f"{option} {text}: {source} has {error}") from None
    return wanted
