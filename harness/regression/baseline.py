"""The baseline of a regression check: what a run scored, item by item, in one file that is committed beside the code.

    harness baseline update runs/mine --baseline baseline.json --reason "first baseline"

The file holds for every cell (teacher, student, method and task) the task's version, a hash of its prompts, and for every seed
and item `[score, digest, ...]`: the score on 0..100, the mean over the item's samples, null where the harness could not give one;
and for each sample the first 16 digits of the sha256 of its output. One item a line and keys in a fixed order, so that its diff
can be reviewed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dskd.errors import InputError
from dskd.io import read_object, read_objects
from harness import tasks
from harness.results.run_file import RunFile, missing_records
from harness.runs.environment import package_version
from harness.runs.records import Environment, Record, read_record
from harness.runs.store import RUN, SAMPLES, now, result_files, write_text_atomic

Kind = Literal["binary", "continuous"]
TEACHER_SEED = "teacher"  # a teacher's own scores have no seed of ours
_DIGITS = 16
_DECIMALS = 4
_STRICT = ConfigDict(extra="forbid")


class Item(BaseModel):
    """One item: its score, and a digest of each of its outputs."""

    model_config = _STRICT
    score: float | None
    outputs: tuple[str, ...]


class SeedScores(BaseModel):
    """One evaluation: a cell with one seed. `environment` names one of the file's environments."""

    model_config = _STRICT
    identity: str
    environment: str
    items: dict[str, Item]


class CellScores(BaseModel):
    """A cell: a model trained by a method on one task, over its seeds, by the task's headline metric."""

    model_config = _STRICT
    task: str
    task_version: str
    prompts: str
    metric: str
    kind: Kind
    higher_is_better: bool
    seeds: dict[str, SeedScores]

    def mean(self) -> float | None:
        """The mean over all items and seeds that have a score."""
        scores = [item.score for seed in self.seeds.values() for item in seed.items.values() if item.score is not None]
        return fmean(scores) if scores else None


class Scores(BaseModel):
    """All cells of a run, by name, and the environments they were evaluated in. `problems`: what could not be read, or failed."""

    model_config = _STRICT
    environments: dict[str, dict[str, Any]] = Field(default_factory=dict)
    cells: dict[str, CellScores] = Field(default_factory=dict)
    problems: list[str] = Field(default_factory=list)


class Provenance(BaseModel):
    """Where a baseline comes from."""

    model_config = _STRICT
    reason: str
    date: str
    matrix: str | None
    commit: str | None
    dirty: bool | None
    harness: str | None


class Baseline(BaseModel):
    """A baseline file."""

    model_config = _STRICT
    schema_version: Literal[1] = 1
    provenance: Provenance
    environments: dict[str, dict[str, Any]]
    cells: dict[str, CellScores]


# --- a run's scores -------------------------------------------------------------------------------------------------------------


def read_run(root: Path) -> Scores:
    """The scores of all evaluations under a folder, or those of a baseline file.

    InputError where there is none, or where two are of one cell and seed.
    """
    if root.is_file():
        kept = read_baseline(root)
        return Scores(environments=kept.environments, cells=kept.cells)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; fix: give the folder of a run, or a baseline file")
    scores, paths = Scores(problems=missing_records(root)), result_files(root)
    if not paths:
        raise InputError(f"{root}: holds no records (result.json); fix: give the folder of a run")
    for path in paths:
        try:
            record = read_record(path)
        except ValueError as error:
            scores.problems.append(str(error))
            continue
        if record.status == "failed":
            what = (
                cell_name(record) if record.cell.task else f"training of {record.cell.student} by {record.cell.method}"
            )
            scores.problems.append(f"{what}: failed: {record.error}")
        elif record.cell.task is not None:
            _add(scores, record, path.parent)
    scores.cells = dict(sorted(scores.cells.items()))
    return scores


def cell_name(record: Record) -> str:
    """`<teacher>__<student>/<method>/<task>`, or `<teacher>/teacher/<task>`: the run's folders without the seed."""
    cell = record.cell
    model = cell.teacher if cell.student is None else f"{cell.teacher}__{cell.student}"
    return f"{model}/{cell.method}/{cell.column}"


def _add(scores: Scores, record: Record, folder: Path) -> None:
    cell = record.cell
    assert cell.task is not None
    assert cell.task_version is not None
    assert record.headline is not None
    samples = [row for _, row in read_objects(folder / SAMPLES)]
    found = CellScores(
        task=cell.task,
        task_version=cell.task_version,
        prompts=_digest_of_prompts(samples, folder / SAMPLES),
        metric=record.headline,
        kind=_kind(cell.task, record.headline, samples),
        higher_is_better=record.metrics[record.headline].higher_is_better,
        seeds={},
    )
    known = scores.cells.setdefault(cell_name(record), found)
    if known.model_copy(update={"seeds": {}}) != found:
        raise InputError(
            f"{folder}: its task version, prompts or metric are not those of the other seeds; fix: evaluate all with one version"
        )
    environment = environment_of(record.environment)
    key = hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:8]
    scores.environments[key] = environment
    seed = TEACHER_SEED if cell.seed is None else str(cell.seed)
    if seed in known.seeds:
        raise InputError(
            f"{folder}: the same cell and seed stand twice under this folder; fix: give the folder of one run"
        )
    known.seeds[seed] = SeedScores(
        identity=record.identity.short, environment=key, items=_items(samples, record.headline)
    )


def _items(samples: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Item]:
    by_id: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_id.setdefault(str(sample["id"]), []).append(sample)
    items = {}
    for identifier, group in by_id.items():
        scored = [sample["scores"][metric] for sample in group if sample["scores"][metric] is not None]
        items[identifier] = Item(
            score=round(fmean(scored), _DECIMALS) if len(scored) == len(group) else None,
            outputs=tuple(_digest(sample["output"]) for sample in group),
        )
    return items


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _digest_of_prompts(samples: Sequence[Mapping[str, Any]], path: Path) -> str:
    for sample in samples:
        if missing := {"id", "prompt", "output", "scores"} - sample.keys():
            raise InputError(
                f"{path}: a line has no {', '.join(sorted(missing))}; fix: evaluate again with this version"
            )
    return _digest(json.dumps(list(dict.fromkeys((str(sample["id"]), sample["prompt"]) for sample in samples))))


def _kind(task: str, metric: str, samples: Sequence[Mapping[str, Any]]) -> Kind:
    if task in tasks.names():
        for known in tasks.load(task).metrics:
            if known.name == metric:
                return known.kind
    # A task of another installation: its scores say it.
    return "binary" if {sample["scores"][metric] for sample in samples} <= {0, 100, None} else "continuous"


def environment_of(environment: Environment) -> dict[str, Any]:
    """What of an environment can change an output: versions, processor or GPU, threads, engine. Our own version and commit are what
    is being checked."""
    versions = {name: text for name, text in environment.versions.items() if text and name != "dskd-harness"}
    if environment.engine != "vllm":
        versions.pop("vllm", None)
    return {
        "engine": environment.engine,
        "device": environment.device,
        "cpu": environment.cpu,
        "threads": environment.threads,
        "platform": environment.platform,
        "python": environment.python,
        "versions": dict(sorted(versions.items())),
    }


# --- the file -------------------------------------------------------------------------------------------------------------------


def make_baseline(root: Path, scores: Scores, reason: str) -> Baseline:
    """A baseline of a run that is whole. InputError where a record is missing or failed, and for a reason without words."""
    if not reason.strip():
        raise InputError("--reason: is empty; fix: say in a few words why the baseline changes")
    if not root.is_dir():
        raise InputError(f"{root}: is no folder; fix: give the folder of a run")
    if scores.problems:
        more = f" (and {len(scores.problems) - 1} more)" if len(scores.problems) > 1 else ""
        raise InputError(
            f"{root}: the run is not whole: {scores.problems[0]}{more}; fix: finish it before it is a baseline"
        )
    if not scores.cells:
        raise InputError(f"{root}: holds no evaluations; fix: run a matrix with tasks")
    commit, dirty = _commit(root)
    provenance = Provenance(
        reason=" ".join(reason.split()),
        date=now()[:10],
        matrix=_matrix(root),
        commit=commit,
        dirty=dirty,
        harness=package_version("dskd-harness"),
    )
    return Baseline(
        provenance=provenance, environments=dict(sorted(scores.environments.items())), cells=dict(scores.cells)
    )


def _matrix(root: Path) -> str | None:
    path = root / RUN
    if not path.is_file():
        return None
    try:
        return RunFile.model_validate(read_object(path)).matrix
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}; fix: run the matrix again") from None


def _commit(root: Path) -> tuple[str | None, bool | None]:
    """The commit that the records name, where they all name the same."""
    records = [read_record(path) for path in result_files(root)]
    commits = {(record.environment.commit, record.environment.dirty) for record in records}
    return commits.pop() if len(commits) == 1 else (None, None)


def read_baseline(path: Path) -> Baseline:
    """A baseline file; InputError where it is missing or is none."""
    if not path.is_file():
        raise InputError(
            f'{path}: no such file; fix: harness baseline update RUN --baseline {path} --reason "first baseline"'
        )
    raw = read_object(path)
    try:
        for cell in raw["cells"].values():
            for seed in cell["seeds"].values():
                seed["items"] = {name: {"score": row[0], "outputs": row[1:]} for name, row in seed["items"].items()}
    except (KeyError, TypeError, AttributeError, IndexError):
        raise InputError(f"{path}: is no baseline file; fix: make one with harness baseline update") from None
    try:
        return Baseline.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}; fix: make the file with harness baseline update") from None


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline file, whole or not at all."""
    content = baseline.model_dump()
    for cell in content["cells"].values():
        for seed in cell["seeds"].values():
            seed["items"] = {name: [_plain(item["score"]), *item["outputs"]] for name, item in seed["items"].items()}
    write_text_atomic(path, "".join(_lines(content)) + "\n")


def _plain(score: float | None) -> float | int | None:
    return int(score) if score is not None and score == int(score) else score


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    """JSON with a line for each key; lists on one."""
    if not isinstance(value, dict) or not value:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False)
        return
    yield "{\n"
    for number, (key, item) in enumerate(value.items()):
        yield f"{indent} {json.dumps(key, ensure_ascii=False)}: "
        yield from _lines(item, indent + " ")
        yield ",\n" if number < len(value) - 1 else "\n"
    yield indent + "}"


def changes(before: Baseline | None, after: Baseline) -> list[str]:
    """What an update changes, a line for each cell and each environment; nothing where all scores and outputs stay."""
    old = before.cells if before else {}
    lines = [f"- {name}: is gone" for name in old if name not in after.cells]
    for name, cell in after.cells.items():
        if name not in old:
            lines.append(f"+ {name}: {_score(cell.mean())} {cell.metric}, {_sizes(cell)}")
        elif (told := list(_cell_changes(old[name], cell))) or old[name] != cell:
            lines.append(f"~ {name}: {'; '.join(told) or 'made with other settings or in another environment'}")
    return lines


def _cell_changes(old: CellScores, new: CellScores) -> Iterator[str]:
    for key in ("task_version", "prompts", "metric", "kind", "higher_is_better"):
        before, after = getattr(old, key), getattr(new, key)
        if before != after:
            yield f"{key.replace('_', ' ')} {before} -> {after}"
    if _sizes(old) != _sizes(new):
        yield f"{_sizes(old)} -> {_sizes(new)}"
    pairs = [
        (items.items[name], item)
        for seed, scores in new.seeds.items()
        if (items := old.seeds.get(seed)) is not None
        for name, item in scores.items.items()
        if name in items.items
    ]
    outputs = sum(before.outputs != after.outputs for before, after in pairs)
    scores = sum(before.score != after.score for before, after in pairs)
    if outputs or scores:
        yield f"{_score(old.mean())} -> {_score(new.mean())} {new.metric}"
        yield f"{outputs} outputs and {scores} scores of {len(pairs)} changed"


def _sizes(cell: CellScores) -> str:
    items = {name for seed in cell.seeds.values() for name in seed.items}
    return f"{len(items)} items, seeds {', '.join(cell.seeds)}"


def _score(value: float | None) -> str:
    return "no score" if value is None else f"{value:.2f}"
