"""The baseline of a regression check: the scores of a run, item by item, in one file that is committed beside the code.

    harness baseline update runs/mine --baseline baseline.json --reason "first baseline"

For every cell (teacher, student, method and task) the file has the version of the task, a hash of its prompts, and for every seed and
item `[score, digest, ...]`. The score is from 0 to 100, the mean over the item's samples, or null if the harness could not give one. A
digest is the first 16 digits of the sha256 of an output, one for each sample. There is one item per line and the keys have a fixed
order, so that a diff can be reviewed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dskd.errors import InputError
from dskd.io import read_object
from harness import tasks
from harness.results.item_scores import DECIMALS, Kind, compact
from harness.results.load import read_records
from harness.results.run_file import RunFile, missing_records
from harness.results.samples import read_samples
from harness.runs.environment import package_version
from harness.runs.records import Environment, Record
from harness.runs.store import RUN, SAMPLES, now, write_text_atomic

TEACHER_SEED = "teacher"  # in place of a seed, which a teacher does not have
_DIGITS = 16
_Samples = dict[str, list[dict[str, Any]]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScoredItem(_Strict):
    """One item: its score, and a digest of each of its outputs."""

    score: float | None
    outputs: tuple[str, ...]


class SeedScores(_Strict):
    """One evaluation: a cell with one seed. `environment` names one of the file's environments."""

    identity: str
    environment: str
    items: dict[str, ScoredItem]


class CellScores(_Strict):
    """A cell: a method on one task, over its seeds, by the headline metric of the task."""

    task: str
    task_version: str
    prompts: str
    metric: str
    kind: Kind
    higher_is_better: bool
    seeds: dict[str, SeedScores]

    def mean(self) -> float | None:
        """The mean over all items and seeds with a score."""
        scores = [item.score for seed in self.seeds.values() for item in seed.items.values() if item.score is not None]
        return fmean(scores) if scores else None


class RunScores(_Strict):
    """All cells of a run by name, and their environments. `problems` are messages on records that are missing, damaged or failed."""

    environments: dict[str, dict[str, Any]] = Field(default_factory=dict)
    cells: dict[str, CellScores] = Field(default_factory=dict)
    problems: list[str] = Field(default_factory=list)


class Provenance(_Strict):
    """The origin of a baseline."""

    reason: str
    date: str
    matrix: str | None
    commit: str | None
    dirty: bool | None
    harness: str | None


class Baseline(_Strict):
    """A baseline file."""

    schema_version: Literal[1] = 1
    provenance: Provenance
    environments: dict[str, dict[str, Any]]
    cells: dict[str, CellScores]


# --- a run's scores -------------------------------------------------------------------------------------------------------------


def read_run(root: Path) -> RunScores:
    """The scores of all evaluations of a run, or those of a baseline file. InputError without records, or for two of a cell and seed."""
    if root.is_file():
        baseline = read_baseline(root)
        return RunScores(environments=baseline.environments, cells=baseline.cells)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; fix: give the folder of a run, or a baseline file")
    records, unreadable = read_records(root)
    if not records and not unreadable:
        raise InputError(f"{root}: holds no records (result.json); fix: give the folder of a run")
    scores = RunScores(problems=[*missing_records(root), *unreadable.values()])
    for path, record in records.items():
        if record.status == "failed":
            cell = record.cell
            name = cell_name(record) if cell.task else f"training of {cell.student} with {cell.method}"
            scores.problems.append(f"{name}: failed: {record.error}")
        elif record.cell.task is not None:
            _add(scores, record, path.parent)
    scores.cells = dict(sorted(scores.cells.items()))
    return scores


def cell_name(record: Record) -> str:
    """`<teacher>__<student>/<method>/<task>`, or `<teacher>/teacher/<task>`: as the folders of the run, without the seed."""
    cell = record.cell
    model = cell.teacher if cell.student is None else f"{cell.teacher}__{cell.student}"
    return f"{model}/{cell.method}/{cell.column}"


def _add(scores: RunScores, record: Record, folder: Path) -> None:
    cell = record.cell
    assert cell.task is not None
    assert cell.task_version is not None
    assert record.headline is not None
    samples = read_samples(folder)
    new = CellScores(
        task=cell.task,
        task_version=cell.task_version,
        prompts=_digest_of_prompts(samples, folder / SAMPLES),
        metric=record.headline,
        kind=_kind(cell.task, record.headline, samples),
        higher_is_better=record.metrics[record.headline].higher_is_better,
        seeds={},
    )
    cell_scores = scores.cells.setdefault(cell_name(record), new)
    if cell_scores.model_copy(update={"seeds": {}}) != new:
        differ = "its task version, prompts or metric differ from the other seeds"
        raise InputError(f"{folder}: {differ}; fix: evaluate all with one version")
    environment = _environment_of(record.environment)
    key = hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:8]
    scores.environments[key] = environment
    seed = TEACHER_SEED if cell.seed is None else str(cell.seed)
    if seed in cell_scores.seeds:
        raise InputError(f"{folder}: the same cell and seed occur twice; fix: give the folder of one run")
    items = _items(samples, record.headline)
    cell_scores.seeds[seed] = SeedScores(identity=record.identity.short, environment=key, items=items)


def _items(samples: _Samples, metric: str) -> dict[str, ScoredItem]:
    items = {}
    for identifier, group in samples.items():
        scored = [sample["scores"][metric] for sample in group if sample["scores"][metric] is not None]
        items[identifier] = ScoredItem(
            score=round(fmean(scored), DECIMALS) if len(scored) == len(group) else None,
            outputs=tuple(_digest(sample["output"]) for sample in group),
        )
    return items


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _digest_of_prompts(samples: _Samples, path: Path) -> str:
    for sample in (sample for group in samples.values() for sample in group):
        if missing := {"prompt", "output"} - sample.keys():
            raise InputError(f"{path}: a line has no {', '.join(sorted(missing))}; fix: evaluate with this version")
    return _digest(json.dumps([(identifier, group[0]["prompt"]) for identifier, group in samples.items()]))


def _kind(task: str, metric: str, samples: _Samples) -> Kind:
    if task in tasks.names():
        for known_metric in tasks.load(task).metrics:
            if known_metric.name == metric:
                return known_metric.kind
    # A task of another installation: its scores tell.
    values = {sample["scores"][metric] for group in samples.values() for sample in group}
    return "binary" if values <= {0, 100, None} else "continuous"


def _environment_of(environment: Environment) -> dict[str, Any]:
    """The part of an environment that can change an output: versions, processor or GPU, threads, engine.

    The version and commit of this package are left out, because they are what is checked.
    """
    versions = {name: text for name, text in environment.versions.items() if text and name != "dskd-harness"}
    if environment.engine != "vllm":
        versions.pop("vllm", None)
    names = ("engine", "device", "cpu", "threads", "platform", "python")
    return {name: getattr(environment, name) for name in names} | {"versions": dict(sorted(versions.items()))}


# --- the file -------------------------------------------------------------------------------------------------------------------


def make_baseline(root: Path, scores: RunScores, reason: str) -> Baseline:
    """Make a baseline of a complete run. InputError if a record is missing or failed, or the reason is empty."""
    if not reason.strip():
        raise InputError("--reason: is empty; fix: say in a few words why the baseline changes")
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder; fix: give the folder of a run")
    if scores.problems:
        more = f" (and {len(scores.problems) - 1} more)" if len(scores.problems) > 1 else ""
        raise InputError(f"{root}: the run is incomplete: {scores.problems[0]}{more}; fix: finish the run first")
    if not scores.cells:
        raise InputError(f"{root}: holds no evaluations; fix: run a matrix with tasks")
    # The commit of the records, if they all have the same.
    commits = {(record.environment.commit, record.environment.dirty) for record in read_records(root)[0].values()}
    commit, dirty = commits.pop() if len(commits) == 1 else (None, None)
    provenance = Provenance(
        reason=" ".join(reason.split()),
        date=now()[:10],
        matrix=_matrix(root),
        commit=commit,
        dirty=dirty,
        harness=package_version("dskd-harness"),
    )
    environments = dict(sorted(scores.environments.items()))
    return Baseline(provenance=provenance, environments=environments, cells=dict(scores.cells))


def _matrix(root: Path) -> str | None:
    path = root / RUN
    if not path.is_file():
        return None
    try:
        return RunFile.model_validate(read_object(path)).matrix
    except ValidationError as error:
        raise InputError(f"{path}: {error.errors()[0]['msg']}; fix: run the matrix again") from None


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file. InputError if it is missing or damaged."""
    if not path.is_file():
        fix = f'harness baseline update RUN --baseline {path} --reason "first baseline"'
        raise InputError(f"{path}: no such file; fix: {fix}")
    raw = read_object(path)
    try:
        for cell in raw["cells"].values():
            for seed in cell["seeds"].values():
                seed["items"] = {name: {"score": row[0], "outputs": row[1:]} for name, row in seed["items"].items()}
    except (KeyError, TypeError, AttributeError, IndexError):
        raise InputError(f"{path}: is not a baseline file; fix: make one with harness baseline update") from None
    try:
        return Baseline.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}; fix: make the file with harness baseline update") from None


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline file atomically."""
    content = baseline.model_dump()
    for cell in content["cells"].values():
        for seed in cell["seeds"].values():
            seed["items"] = {name: [compact(item["score"]), *item["outputs"]] for name, item in seed["items"].items()}
    write_text_atomic(path, "".join(json_lines(content)) + "\n")


def json_lines(value: Any, indent: str = "") -> Iterator[str]:
    """JSON with one line per key; a list is on one line."""
    if not isinstance(value, dict) or not value:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False)
        return
    yield "{\n"
    for number, (key, item) in enumerate(value.items()):
        yield f"{indent} {json.dumps(key, ensure_ascii=False)}: "
        yield from json_lines(item, indent + " ")
        yield ",\n" if number < len(value) - 1 else "\n"
    yield indent + "}"


def changes(before: Baseline | None, after: Baseline) -> list[str]:
    """The changes of an update, one line per cell. Empty if all scores and outputs stay the same."""
    old = before.cells if before else {}
    lines = [f"- {name}: removed" for name in old if name not in after.cells]
    for name, cell in after.cells.items():
        if name not in old:
            lines.append(f"+ {name}: {_score(cell.mean())} {cell.metric}, {_sizes(cell)}")
        elif (changed := list(_cell_changes(old[name], cell))) or old[name] != cell:
            lines.append(f"~ {name}: {'; '.join(changed) or 'made with other settings or in another environment'}")
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
