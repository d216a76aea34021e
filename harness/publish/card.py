"""The model card of a student: what it was made of, its scores, its cost, licences, and how to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from dskd import methods
from dskd.errors import InputError
from dskd.training.provenance import License, Origin, Provenance
from harness import tasks
from harness.publish.bibtex import bibtex
from harness.publish.markdown import fenced, link, table, text
from harness.publish.student import Score, Student
from harness.publish.tuning import tuning_section
from harness.publish.usage import prompt_section, usage_section
from harness.tables.contamination_notes import contamination_notes

PLACEHOLDER = "ORG/NAME"
_SITE = "https://huggingface.co"
_DATA = "datasets/"
_UNKNOWN = "not known"


def card_text(student: Student, repository: str | None = None, license: str | None = None) -> str:
    """The card as README.md holds it.

    Args:
        student: Whose card it is.
        repository: What it will be called on the hub.
        license: That its owner gives it; by default that of the student that it started from.
    """
    from huggingface_hub import ModelCard

    body = "\n".join(_sections(student, repository or PLACEHOLDER, license))
    card = ModelCard(f"---\n{_metadata(student, repository, license).to_yaml()}\n---\n\n{body}")
    return f"{card}\n" if not str(card).endswith("\n") else str(card)


def _metadata(student: Student, repository: str | None, license: str | None) -> Any:
    """The front matter. Ids alone go into it that are the hub's."""
    from huggingface_hub import ModelCardData

    made = student.provenance
    own = License(id=license) if license else made.student.license
    own = own if own is None or "," not in own.id else License(id="other", name=own.id)
    scores = [score for score in student.scores if score.metric == score.record.headline]
    results = [result for score in scores if (result := _result(score)) is not None]
    name = (repository or student.name).rpartition("/")[2]
    data = ModelCardData(
        base_model=made.student.hub,
        datasets=[made.data.hub] if made.data.hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        license=own.id if own else None,
        license_name=own.name if own else None,
        license_link=own.link if own else None,
        tags=["distillation", "knowledge-distillation", "dskd-harness", made.method],
        model_name=name if results else None,
        eval_results=results or None,
    )
    if made.student.hub:
        data["base_model_relation"] = "finetune"
    return data


def _result(score: Score) -> Any:
    from huggingface_hub import EvalResult

    record, value = score.record, score.record.metrics[score.metric].value
    if value is None:
        return None
    hub = _hub_rows(str(record.cell.task))
    return EvalResult(
        task_type="text-generation",
        dataset_type=hub[0] if hub else str(record.cell.task),
        dataset_name=str(record.cell.column),
        dataset_config=hub[1] if hub else None,
        dataset_split=hub[2] if hub else None,
        metric_type=score.metric,
        metric_name=score.metric,
        metric_value=round(value, 2),
    )


def _hub_rows(name: str) -> tuple[str, str | None, str] | None:
    """(data set on the hub, configuration, split) of a task's items, where they are known."""
    try:
        task = tasks.load(name)
    except InputError:  # a task of the user's that is not here
        return None
    hub = next((data.hub for data in task.data_files if data.hub is not None), None)
    return (hub.repository, hub.configuration, hub.split) if hub is not None else None


def _sections(student: Student, repository: str, license: str | None) -> Iterator[str]:
    made = student.provenance
    yield f"# {text(repository.rpartition('/')[2] if repository != PLACEHOLDER else student.name)}\n"
    taught = f" from {_named(made.teacher)}" if made.teacher else ""
    verb = "distilled" if made.teacher else "fine-tuned"
    data = f" on {_named(made.data, _DATA)}" if made.data.name != "unknown" else ""
    yield f"{_named(made.student)}, {verb}{taught}{data} by {_method(made)}.\n"
    yield f"## How to use it\n\n{usage_section(student.folder, repository)}"
    yield f"## How it was trained to be asked\n\n{prompt_section(student.folder)}"
    yield f"## Scores\n\n{_scores(student)}"
    yield f"## What it was made of\n\n{_origins(made)}"
    if chosen := tuning_section(student):
        yield f"## How its setting was chosen\n\n{chosen}"
    yield f"## Cost\n\n{_cost(student)}"
    yield f"## Licences\n\n{_licenses(made, license)}"
    yield f"## Citation\n\n{fenced(bibtex(_paper(made)), 'bibtex')}"


def _parts(made: Provenance) -> list[tuple[str, str, Origin]]:
    """(what it was, where the hub keeps such things, where it came from) of each part of a student."""
    parts = [
        ("teacher", "", made.teacher),
        ("student before training", "", made.student),
        ("training data", _DATA, made.data),
    ]
    return [(what, kind, part) for what, kind, part in parts if part is not None]


def _named(origin: Origin, kind: str = "") -> str:
    return link(origin.hub, f"{_SITE}/{kind}{origin.hub}") if origin.hub else text(origin.name)


def _method(made: Provenance) -> str:
    try:
        method = methods.get(made.method)
    except InputError:  # of the user's, not here
        return text(made.method)
    return f"{text(method.title)} ({text(made.method)})"


def _paper(made: Provenance) -> str:
    try:
        return methods.get(made.method).paper
    except InputError:
        return ""


# --- scores ---------------------------------------------------------------------------------------------------------------------


def _scores(student: Student) -> str:
    if not student.scores:
        return "Not evaluated.\n"
    several = any(score.seeds for score in student.scores)
    header = ["task", "metric", "score", "95 % interval", "samples", "teacher"]
    header += ["mean of the seeds", "95 % interval", "seeds"] if several else []
    rows = [[*_own(score), *(_over_seeds(score) if several else [])] for score in student.scores]
    records = list({score.record.cell.key: score.record for score in student.scores}.values())
    notes = [f"Score 0–100 of this model alone (seed {student.provenance.seed})."]
    notes += (
        ["The mean of the seeds is of the method: models trained the same way with other seeds."] if several else []
    )
    engines = sorted({str(record.environment.engine) for record in records})
    notes.append(f"Completions by {text(', '.join(engines))}; protocol greedy unless the task's name says another.")
    flaws = "".join(f"- {text(note)}\n" for note in [*_flaws(records), *contamination_notes(records)])
    return f"{table(header, rows)}\n{' '.join(notes)}\n" + (f"\n{flaws}" if flaws else "")


def _own(score: Score) -> list[str]:
    record, metric = score.record, score.record.metrics[score.metric]
    taught = score.teacher
    return [
        text(f"{record.cell.column} (version {record.cell.task_version})"),
        text(score.metric),
        f"{metric.value:.1f}" if metric.value is not None else text(f"none: {metric.reason}"),
        _interval(metric.ci95),
        f"{metric.n or (record.n.total if record.n else 0):,}",
        f"{taught.value:.1f}" if taught is not None and taught.value is not None else "–",
    ]


def _over_seeds(score: Score) -> list[str]:
    row = score.seeds
    if row is None or row.value is None:
        return ["–", "–", "–"]
    return [f"{row.value:.1f}", _interval(row.ci95), str(row.seeds)]


def _interval(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else f"{ends[0]:.1f} to {ends[1]:.1f}"


def _flaws(records: list[Any]) -> list[str]:
    found = []
    for record in records:
        counts = {"invalid": record.n.invalid, "cut off at the token limit": record.n.truncated}
        named = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        found += [f"{record.cell.column}: {named} of {record.n.total} completions"] if named else []
    return found


# --- what it was made of --------------------------------------------------------------------------------------------------------


def _origins(made: Provenance) -> str:
    rows = [[what, _named(part, kind), _whence(part)] for what, kind, part in _parts(made)]
    paper = _paper(made)
    source = (
        link(paper, f"https://arxiv.org/abs/{paper.removeprefix('arXiv ')}") if paper[:6] == "arXiv " else text(paper)
    )
    facts = [f"- Method: {_method(made)}" + (f", {source}" if paper not in ("", "–") else "")]
    facts += [f"- Examples: {made.examples:,}"] if made.examples is not None else []
    facts.append(f"- Seed: {made.seed}")
    changed = " with uncommitted changes" if made.dirty else ""
    facts += [f"- Code: dskd-harness, commit {text(made.commit)}{changed}"] if made.commit else []
    packages = ", ".join(f"{text(name)} {text(number)}" for name, number in made.versions.items() if number)
    facts += [f"- Versions: {packages}"] if packages else []
    options = {"method": made.method_options, "training": made.training}
    settings = yaml.safe_dump(_given(options), sort_keys=False, allow_unicode=True)
    return f"{table(['', 'name', 'from'], rows)}\n" + "\n".join(facts) + f"\n\n{fenced(settings, 'yaml')}"


def _given(value: Any) -> Any:
    """Settings without those that are not set."""
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return value


def _whence(origin: Origin) -> str:
    if origin.hub:
        return text(f"the hub, commit {origin.revision}" if origin.revision else "the hub")
    return text(origin.made or (f"a file, sha256 {origin.sha256}" if origin.sha256 else "a local folder"))


def _cost(student: Student) -> str:
    cost = student.record.cost.model_dump() if student.record is not None else {}
    report, device = student.report, student.record.environment.device if student.record is not None else None
    tokens, seconds = (cost.get(key) or report.get(key) for key in ("tokens", "train_seconds"))
    facts = {
        "optimizer steps": f"{report['steps']:,}" if "steps" in report else None,
        "student tokens trained on": f"{tokens:,}" if tokens else None,
        "training time": f"{seconds:,.0f} s" if seconds else None,
        "teacher cache, once for all trainings that read it": _seconds(cost.get("signal_seconds")),
        "processes": cost.get("processes"),
        "device": text(device) if device else None,
        "peak memory": _bytes(cost.get("peak_memory")),
        "peak GPU memory": _bytes(cost.get("peak_device_memory") or report.get("peak_device_memory")),
        "note": text(cost["reason"]) if cost.get("reason") else None,
    }
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    return table(["", ""], rows) if rows else "Not recorded.\n"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f} s"


def _bytes(value: int | None) -> str | None:
    return None if value is None else f"{value / 2**20:,.0f} MiB"


# --- licences -------------------------------------------------------------------------------------------------------------------


def _licenses(made: Provenance, license: str | None) -> str:
    rows = [[what, _named(part, kind), _license(part.license)] for what, kind, part in _parts(made)]
    rows.append(
        ["this model", "", text(license) if license else f"{_license(made.student.license)}, as where it started"]
    )
    if license is None and made.student.license is None:
        rows[-1][2] = _UNKNOWN
    unknown = [what for what, _, part in _parts(made) if part.license is None]
    said = []
    if made.teacher is not None:
        said.append(
            "The terms of a teacher may bind models that are trained on what it gives, whatever licence these models have "
            "themselves: read them before you use this model or pass it on."
        )
    if unknown:
        said.append(f"Licences that are not known: {', '.join(unknown)}. Not known is not free: ask their owners.")
    return f"{table(['', 'name', 'licence'], rows)}\n{' '.join(said)}\n"


def _license(given: License | None) -> str:
    if given is None:
        return _UNKNOWN
    shown = text(given.name or given.id)
    return link(given.name or given.id, given.link) if given.link else shown
