"""The ranking of trials by their validation scores: what goes on, and at the end what is chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dskd.errors import InputError
from dskd.io import read_object
from harness.runs.job_context import JobContext
from harness.runs.records import read_record
from harness.runs.store import RESULT, OutputFolder, write_json_atomic
from harness.steps.base import NOT_IDENTITY, Input, Step
from harness.steps.leaks import VALIDATION
from harness.steps.reference import Reference
from harness.tuning import rule
from harness.tuning.records import TrialRecord


class Candidate(Input):
    """One trial that is ranked.

    Attributes:
        scores: Its evaluation on validation items.
        outputs: The folder of each task's record, under the root.
        training: The folder of its training, which another goes on from.
        trial: Its number; None where an earlier ranking says which it is.
        position: Its position in the earlier ranking, from 0.
        settings: What it changes of the default.
    """

    scores: Reference
    outputs: Annotated[dict[str, str], NOT_IDENTITY]
    training: Annotated[str, NOT_IDENTITY]
    trial: int | None = None
    position: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class Ranked(BaseModel):
    """A trial in a ranking, best first: what was tried, how well it did, and where its training lies."""

    model_config = ConfigDict(extra="forbid")
    record: TrialRecord
    training: str


class Ranking(Step):
    """Trials from the best to the worst. `rung`: the number of the comparison; `keep`: so many go on."""

    kind, version, place, product = "ranking", 1, "rankings", "ranking.json"

    rung: int
    share: float
    keep: int
    rule: str = rule.RULE
    candidates: list[Candidate]
    earlier: Reference | None = None
    teacher: Reference | None = None
    teacher_outputs: Annotated[dict[str, str], NOT_IDENTITY] = Field(default_factory=dict)

    def run(self, job: JobContext) -> None:
        """Rank. InputError where no trial has a score."""
        teacher = {task: _score(job.root / folder) for task, folder in self.teacher_outputs.items()}
        before = read_ranking(self.earlier.path(job.root)) if self.earlier is not None else []
        entries = []
        for candidate in self.candidates:
            scores = {task: _score(job.root / folder) for task, folder in candidate.outputs.items()}
            first = before[candidate.position].record if candidate.position is not None else None
            manifest = OutputFolder(job.root / candidate.training).manifest
            cost = (manifest.report if manifest is not None else {}).get("cost", {})
            entries.append(
                Ranked(
                    record=TrialRecord(
                        trial=(candidate.trial or 0) if first is None else first.trial,
                        settings=candidate.settings if first is None else first.settings,
                        share=self.share,
                        score=rule.score(scores, teacher),
                        scores=scores,
                        tokens=cost.get("tokens"),
                        seconds=cost.get("train_seconds"),
                    ),
                    training=candidate.training,
                )
            )
        order = rule.ranked([each.record.score for each in entries], [each.record.trial for each in entries])
        best = entries[order[0]].record
        if best.score is None:
            raise InputError(f"{self.title}: no trial has a validation score; fix: look into the logs of its trainings")
        dropped = [each for each in before[len(entries) :] if before]
        content = {
            "rule": self.rule,
            "teacher": teacher,
            "ranking": [entries[place].model_dump(mode="json") for place in order]
            + [each.model_dump(mode="json") for each in dropped],
        }
        write_json_atomic(self.path(job.root), content)
        print(f"{self.title}: trial {best.trial} is the best, {best.score:g}: {json.dumps(best.settings)}", flush=True)
        job.finish(job.output, report={"best": best.trial, "score": best.score, "settings": best.settings})


def read_ranking(folder: Path) -> list[Ranked]:
    """The trials of a ranking, the best first, and after those that were ranked last time those that were dropped before."""
    return [Ranked.model_validate(each) for each in read_object(folder / str(Ranking.product))["ranking"]]


def read_outcome(folder: Path) -> dict[str, Any]:
    """What a ranking says for a `TuningRecord`."""
    content = read_object(folder / str(Ranking.product))
    records = [Ranked.model_validate(each).record for each in content["ranking"]]
    default = next(record for record in records if record.trial == 0)
    return {
        "rule": content["rule"],
        "teacher": content["teacher"],
        "chosen": records[0].trial,
        "settings": records[0].settings,
        "score": records[0].score,
        "default_score": default.score,
        "trials": records,
    }


def _score(folder: Path) -> float | None:
    """The headline metric of a record on validation items; None where the model had nothing to score. InputError for test items."""
    record = read_record(folder / RESULT)
    if not str(record.cell.task).endswith(VALIDATION):
        raise InputError(
            f"{folder / RESULT}: is of {record.cell.task}, which is no validation task, and settings are never chosen by test items; "
            "fix: remove the folder, and run again"
        )
    if record.status != "done" or record.headline is None:
        return None
    return record.metrics[record.headline].value
