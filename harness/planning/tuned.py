"""From `tuning` of a matrix to trials, rankings and students of the chosen setting: all known before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from dskd import methods
from dskd.errors import InputError
from dskd.methods.space import Space
from harness import tasks
from harness.config.matrix import Cell
from harness.config.settings import TaskSettings
from harness.config.tuning import Budget, Tuning, base_name
from harness.costs.work import Device
from harness.planning.distances import DistanceSources
from harness.planning.evaluated import evaluated_task
from harness.planning.trial_points import settings_of_trials
from harness.runs.records import RecordCell
from harness.steps.evaluation import EvaluatedTask
from harness.steps.leaks import VALIDATION
from harness.steps.ranking import Candidate, Ranking
from harness.steps.reference import Reference
from harness.steps.several_teachers import TaughtBySeveral
from harness.steps.training import Train
from harness.steps.trial import LaterTrial, Trial, TunedTrain, value_of, with_settings
from harness.steps.validation import Validate
from harness.suggestions import did_you_mean
from harness.tuning.rungs import most_trials, rungs

# Options of a training that every trial has alike: they are the budget, or change what is prepared.
_FIXED = ("steps", "epochs", "max_length", "dtype", "seed")


@dataclass(eq=False)
class TunedSources(DistanceSources):
    """A matrix's sources with what trials are evaluated by.

    Attributes:
        engine: the engine that is asked for, `auto` included: which one answered is in the record.
        limit: evaluate on so many items of each task at most.
        allow_code_execution: whether tasks may run generated code.
        answering: how evaluations and a teacher's responses are generated.
        rankings: the last ranking of what is tuned, by teacher, student, data and method, and what records say of the tuning.
    """

    engine: str = "auto"
    limit: int | None = None
    allow_code_execution: bool = False
    rankings: dict[tuple[str | None, ...], tuple[Ranking, dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answering = {**self.matrix.evaluation.answering, "engine": self.engine}


def tuned_training(sources: TunedSources, cell: Cell, training: Train) -> TunedTrain:
    """The training of a student whose setting is chosen by trials.

    Args:
        sources: What the matrix names.
        cell: The student's cell.
        training: The same with the default setting.

    Raises:
        InputError: For tuning that cannot be.
    """
    tuning = sources.matrix.tuning
    assert tuning is not None
    if cell.seed == tuning.trial_seed:
        raise InputError(
            f"{sources.where('seeds')}: {cell.seed} is the seed of the trials; fix: take another, so that students are chosen and "
            "tested with different ones"
        )
    key = (cell.teacher, cell.student, cell.data, cell.method)
    if key not in sources.rankings:
        sources.rankings[key] = _Tuning(sources, cell, training, tuning).ranking()
    ranking, said = sources.rankings[key]
    return TunedTrain(**_fields(training), ranking=Reference.to(ranking), tuning=said)


class _Tuning:
    """The trials of one method on one pair."""

    def __init__(self, sources: TunedSources, cell: Cell, training: Train, tuning: Tuning) -> None:
        self._sources, self._cell, self._tuning = sources, cell, tuning
        self._name = base_name(cell.method)
        self._cell_of_trials = RecordCell(**{**cell.recorded, "seed": tuning.trial_seed})
        fields = {**_fields(training), "seed": tuning.trial_seed, "cell": self._cell_of_trials}
        self._default = Trial(**{**fields, "output_folder": "", "title": f"trials of {cell.folder}"})

    def ranking(self) -> tuple[Ranking, dict[str, Any]]:
        """The last ranking, and what records say of the tuning but for its outcome."""
        space = self._space()
        defaults = {name: value_of(self._default, name) for name in space}
        settings = settings_of_trials(space, defaults, self._trials(), self._tuning.seed)
        steps = rungs(len(settings), halving=self._tuning.halving)
        teacher = self._validate(self._teacher(), self._cell.teacher) if self._scored_teacher else None
        ranking: Ranking | None = None
        for number, rung in enumerate(steps):
            trained: Sequence[Trial | LaterTrial]
            if ranking is None:
                trained = [self._trial(place, changes, rung.share) for place, changes in enumerate(settings)]
            else:
                trained = [self._later(ranking, place, rung.share) for place in range(rung.trials)]
            keep = steps[number + 1].trials if number + 1 < len(steps) else 1
            ranking = Ranking(
                title=f"{self._pair}: ranking of {rung.trials} at {rung.share:.0%} of the steps",
                rung=number,
                share=rung.share,
                keep=keep,
                candidates=[
                    self._candidate(training, place, settings if ranking is None else None)
                    for place, training in enumerate(trained)
                ],
                earlier=None if ranking is None else Reference.to(ranking),
                teacher=None if teacher is None else Reference.to(teacher),
                teacher_outputs={} if teacher is None else teacher.outputs_by_task,
            )
        assert ranking is not None
        said = {
            "budget": self._tuning.budget.said,
            "halving": self._tuning.halving,
            "seed": self._tuning.seed,
            "trial_seed": self._tuning.trial_seed,
            "space": {name: each.text for name, each in space.items()},
        }
        return ranking, said

    @property
    def _pair(self) -> str:
        return f"{self._cell.teacher}__{self._cell.trained}/{self._name}"

    def _trial(self, number: int, settings: Mapping[str, Any], share: float) -> Trial:
        place = ("tuning", "spaces", self._name)
        tried = f"trial {number} has {', '.join(f'{name} {value}' for name, value in settings.items())}"
        try:
            trial = with_settings(self._default, settings)
            methods.get(trial.method)(trial.method_options)
        except ValidationError as error:
            raise InputError(
                f"{self._where(*place)}: {tried}: {error.errors()[0]['msg']}; fix: narrow the space"
            ) from None
        except InputError as error:
            raise InputError(f"{self._where(*place)}: {tried}: {error}") from None
        trial = trial.model_copy(
            update={"share": share, "title": f"{self._pair}: trial {number}, {share:.0%} of its steps"}
        )
        for problem in trial.problems():
            raise InputError(f"{problem.text(self._where(*place))}; {tried}")
        return trial

    def _later(self, ranking: Ranking, place: int, share: float) -> LaterTrial:
        title = f"{self._pair}: trial in place {place + 1}, {share:.0%} of its steps"
        return LaterTrial(
            **{**_fields(self._default), "share": share, "title": title},
            ranking=Reference.to(ranking),
            position=place,
        )

    def _candidate(
        self, training: Trial | LaterTrial, place: int, settings: Sequence[Mapping[str, Any]] | None
    ) -> Candidate:
        scores = self._validate(training, training.title)
        which: dict[str, Any] = (
            {"position": place} if settings is None else {"trial": place, "settings": dict(settings[place])}
        )
        return Candidate(scores=Reference.to(scores), outputs=scores.outputs_by_task, training=training.folder, **which)

    def _validate(self, model: Any, title: str) -> Validate:
        cell = self._cell_of_trials if isinstance(model, Train) else RecordCell(**self._teacher_cell.recorded)
        return Validate(
            title=f"validate {title}",
            cell=cell,
            cell_folder="",
            model=model,
            tasks=self._tasks(),
            tested=self._tested(),
            allow_code_execution=self._sources.allow_code_execution,
            **self._sources.answering,
        )

    # --- the teacher, by whose scores those of tasks are scaled ---

    @property
    def _teacher_cell(self) -> Cell:
        return Cell(self._cell.teacher, None, "teacher", None)

    @property
    def _scored_teacher(self) -> bool:
        matrix = self._sources.matrix
        return matrix.evaluation.score_teachers and self._cell.teacher in matrix.scored_teachers

    def _teacher(self) -> Any:
        return self._sources.model(self._cell.teacher)

    # --- what is tuned, on what, and how often ---

    def _space(self) -> Space:
        method = methods.get(self._default.method)(self._default.method_options)
        space = dict(method.whole_space)
        if "top_k" in self._kinds_of_outputs():
            space.pop("temperature", None)  # these distributions are of one temperature
        for option, given in self._tuning.spaces.get(self._name, {}).items():
            where = self._where("tuning", "spaces", self._name, option)
            if option.removeprefix("training.") in _FIXED:
                raise InputError(f"{where}: is the same for all trials; fix: leave it out")
            try:
                value_of(self._default, option)
            except (KeyError, TypeError):
                known = [*self._default.method_options, "training.learning_rate"]
                raise InputError(f"{where}: {method.name} has no such option{did_you_mean(option, known)}") from None
            if given is None:
                space.pop(option, None)
            else:
                space[option] = given
        return space

    def _kinds_of_outputs(self) -> set[str]:
        """What the student learns from, of each of its teachers."""
        data, own = self._default.data, self._default.teacher_outputs
        outputs = [part.outputs for part in data.parts] if isinstance(data, TaughtBySeveral) else [own or {}]
        return {str(each.get("kind")) for each in outputs}

    def _tasks(self) -> list[EvaluatedTask]:
        matrix = self._sources.matrix
        by_name = {matrix.task_of(entry): settings for entry, settings in reversed(matrix.tasks.items())}
        named = self._tuning.tasks
        names = named or [name for name in reversed(by_name) if tasks.load(name).has_validation]
        if not names:
            others = dict.fromkeys(tasks.load(name).validation_from for name in reversed(by_name))
            known = ", ".join(each for each in others if each is not None) or "TASK, …"
            raise InputError(
                f"{self._where('tuning')}: no task of the matrix has validation items; fix: name others, tasks: [{known}]"
            )
        limited = self._tuning.limit if isinstance(self._tuning.limit, dict) else {}
        for name in limited:
            if name not in names:
                raise InputError(
                    f"{self._where('tuning', 'limit', name)}: settings are not chosen by {name}{did_you_mean(name, names)}"
                )
        found = []
        for index, name in enumerate(names):
            where = self._where("tuning", "tasks", index) if named else self._where("tuning")
            if not tasks.load(name).has_validation:
                raise InputError(f"{where}: {name} has no validation items; fix: {tasks.load(name).choose_by}")
            if not tasks.load(name).metrics[0].higher_is_better:
                raise InputError(f"{where}: less is better in {name}, and trials are ranked by more; fix: leave it out")
            settings = by_name.get(name, TaskSettings())
            limits = [each for each in (self._tuning.limit_of(name), self._sources.limit) if each is not None]
            found.append(
                evaluated_task(
                    f"{name}{VALIDATION}",
                    f"{name}{VALIDATION}",
                    settings.with_limits_of_reasoning(),
                    limit=min(limits, default=None),
                    max_new_tokens=settings.max_new_tokens,
                )
            )
        return found

    def _tested(self) -> list[str]:
        """The tasks of the matrix, of which no item may be among those that settings are chosen by."""
        matrix = self._sources.matrix
        return sorted({matrix.task_of(entry) for entry in matrix.tasks})

    def _trials(self) -> int:
        budget: Budget = self._tuning.budget
        if budget.trials is not None:
            return budget.trials
        work = self._default.estimate(Device(peak_tflops=budget.tflops, utilization=1.0))
        if budget.tokens is not None:
            whole = budget.tokens / sum(each.tokens for each in work)
        else:
            whole = float(budget.seconds or 0.0) / sum(each.gpu_hours * 3600 for each in work)
        return most_trials(whole, halving=self._tuning.halving)

    def _where(self, *keys: Any) -> str:
        return self._sources.where(*keys)


def _fields(step: Train) -> dict[str, Any]:
    return {name: getattr(step, name) for name in type(step).model_fields if name in Train.model_fields}
