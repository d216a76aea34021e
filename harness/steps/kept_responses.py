"""Of a teacher's responses to a training set those that a task's scorer finds right: rejection sampling."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any, Literal

from dskd.compatibility import Problem
from dskd.data.formats import Row
from dskd.data.messages import Unusable
from dskd.data.options import Takes
from dskd.data.shapes import Item, read_row
from dskd.errors import InputError
from harness import tasks
from harness.responses.prompts import asked_of, prompt_key, rows_by_prompt
from harness.runs.job_context import JobContext
from harness.runs.store import write_jsonl_atomic
from harness.steps.base import NOT_IDENTITY, ModelInput, Of, Step
from harness.steps.data import Examples
from harness.steps.endpoint_responses import EndpointResponses, TeacherEndpoint
from harness.steps.teacher_responses import TeacherResponses

Responses = TeacherResponses | EndpointResponses


class KeptResponses(Step):
    """The responses to each prompt that are right, all of them or the shortest (by the bytes of its text; the first of equals).

    Nothing is sampled here: another choice from the same responses asks the teacher nothing. Prompts whose row says no answer, or whose
    responses are all wrong, have no text; they are left out and counted.

    Attributes:
        responses: The teacher's, to all prompts.
        scorers: What the identity has of each task that scores them, by name. Of several, a row names its own in the column `task`.
        allow_code_execution: Whether tasks may run the programs in the responses.
    """

    kind, version, place, product = "kept-responses", 1, "answers", "answers.jsonl"

    responses: Of[Responses]
    keep: Literal["right", "shortest_right"]
    scorers: dict[str, dict[str, Any]]
    allow_code_execution: Annotated[bool, NOT_IDENTITY] = False

    @property
    def name(self) -> str:
        """What its examples are called in records."""
        return f"{self.responses.name}, right ones"

    @property
    def examples(self) -> Examples:
        """The training set whose prompts are answered."""
        return self.responses.examples

    @property
    def limit(self) -> int | None:
        """So many rows of it are asked."""
        return self.responses.limit

    @property
    def samples(self) -> int:
        """Examples for each prompt, at most."""
        return (self.responses.samples or 1) if self.keep == "right" else 1

    @property
    def teacher(self) -> ModelInput | TeacherEndpoint:
        """Who wrote them."""
        return self.responses.teacher

    def takes(self, root: Path) -> Takes:
        """What its rows are written as."""
        return self.responses.takes(root)

    def preflight(self, root: Path) -> Sequence[Problem]:
        """Check that the tasks may score: one that runs programs only where that is allowed."""
        for name in self.scorers:
            tasks.load(name).check_permission(self.allow_code_execution)
        return ()

    def run(self, job: JobContext) -> None:
        """Score and choose. InputError where no response is right."""
        takes = self.takes(job.root)
        answered = rows_by_prompt(self.responses.path(job.root), takes)
        of_examples = list(self._documents(job.root, takes))
        documents: dict[str, tuple[str, Any]] = {}
        for key, found in of_examples:
            if found is not None:
                documents.setdefault(key, found)
        kept, scored, right = self._chosen(job, answered, documents)
        without = sum(not kept.get(key) for key, _ in of_examples)
        responses = sum(map(len, answered.values()))
        rows = [row for key in dict.fromkeys(key for key, _ in of_examples) for row in kept.get(key, ())]
        report = {
            "prompts": len(of_examples),
            "responses": responses,
            "not_scored": responses - scored,
            "right": right,
            "kept": len(rows),
            "without_text": without,
        }
        print(json.dumps(report, indent=2), flush=True)
        if not rows:
            raise InputError(
                f"text.teacher.keep: {self.keep}: none of {responses:,} responses of {self.teacher_name} is right by "
                f"{', '.join(self.scorers)}; fix: keep: all, more samples, or another task"
            )
        write_jsonl_atomic(self.path(job.root), rows)
        job.finish(job.output, report=report)

    @property
    def teacher_name(self) -> str:
        """What the teacher is called."""
        return self.responses.teacher.name

    def _documents(self, root: Path, takes: Takes) -> Iterator[tuple[str, tuple[str, Any] | None]]:
        """Of each example the key of its prompt, and its task with the document that it is scored by, if it says an answer."""
        for row, item in read_rows(self.examples, root, takes, self.limit):
            yield prompt_key(asked_of(item)), self._document(row)

    def _document(self, row: Row) -> tuple[str, Any] | None:
        names = [*self.scorers]
        own = row.get("task")
        name = own if own in self.scorers else names[0] if len(names) == 1 else None
        document = None if name is None else tasks.load(name).training_document(row)
        return None if document is None else (str(name), document)

    def _chosen(
        self, job: JobContext, answered: Mapping[str, list[Row]], documents: Mapping[str, tuple[str, Any]]
    ) -> tuple[dict[str, list[Row]], int, int]:
        """(the rows that are kept by prompt, how many responses were scored, how many of these are right)."""
        pairs = [(key, row) for key, rows in answered.items() if key in documents for row in rows]
        done, scored, right = count(1), 0, 0
        kept: dict[str, list[Row]] = {}
        for name in self.scorers:
            own = [(key, row) for key, row in pairs if documents[key][0] == name]
            if not own:
                continue
            task = tasks.load(name)
            if not all("prompt" in row for _, row in own):
                task = task.as_chat()
            scores = task.score_many(
                [documents[key][1] for key, _ in own],
                [_text(row) for _, row in own],
                allow_code_execution=self.allow_code_execution,
                advance=lambda: job.advance("scoring responses", next(done), len(pairs)),
            )
            for (key, row), score in zip(own, scores, strict=True):
                scored += score.scores[task.metrics[0].name] is not None
                if task.is_right(score):
                    right += 1
                    kept.setdefault(key, []).append(row)
        if self.keep == "shortest_right":
            kept = {key: [min(rows, key=_size)] for key, rows in kept.items()}
        return kept, scored, right


def scorers_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What an identity has of tasks that score. InputError, without a place, for one that cannot tell right from wrong in training rows."""
    found = {}
    for name in names:
        task = tasks.load(name)
        if not task.scores_training_rows:
            known = [each for each in tasks.names() if tasks.load(each).scores_training_rows]
            raise InputError(
                f"task {name}: does not score rows of a training set; fix: one of {', '.join(known)}, or give your task "
                "`answer_fields` or `training_document`"
            )
        found[name] = {"version": task.version, **task.identity()}
    return found


def read_rows(examples: Examples, root: Path, takes: Takes, limit: int | None) -> Iterator[tuple[Row, Item]]:
    """Each row of a training set that can be used, and what it is."""
    for where, row in islice(examples.rows(root), limit):
        try:
            yield row, read_row(row, where, takes, examples.options)
        except Unusable:  # counted where the data is prepared
            continue


def _text(row: Row) -> str:
    return str(row["messages"][-1]["content"] if "messages" in row else row["output"])


def _size(row: Row) -> int:
    reasoning = row["messages"][-1].get("reasoning_content") or "" if "messages" in row else ""
    return len(f"{reasoning}{_text(row)}".encode())
