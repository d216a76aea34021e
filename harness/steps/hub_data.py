"""A split of a data set on the hub, as a file of a run: downloaded once, at one commit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from dskd.data.formats import Row
from dskd.data.hub_rows import HubData, rows_of_hub
from dskd.data.options import DataOptions
from dskd.data.reading import as_json, rows_of
from dskd.hub import HubName
from dskd.io import write_lines_atomic
from harness.costs.model_shapes import DataSize
from harness.runs.job_context import JobContext
from harness.steps.base import NOT_IDENTITY, OMIT_NONE, Of, Step
from harness.steps.data import RowExamples, said, size_of_rows


class HubRows(Step):
    """The rows of a split, as JSON lines. revision: what the commit was the newest of."""

    kind, version, place, product = "hub-data", 1, "hub-data", "rows.jsonl"

    repository: str
    commit: str
    configuration: Annotated[str | None, OMIT_NONE] = None
    split: str
    revision: Annotated[str, NOT_IDENTITY] = "main"

    @property
    def named(self) -> HubData:
        """The split, by its name on the hub."""
        return HubData(HubName(self.repository, self.revision), self.configuration, self.split)

    def rows(self, root: Path) -> Iterator[tuple[str, Row]]:
        """Its rows with their places: of the run's file where it is made, else from the hub or its cache."""
        made = self.path(root)
        return rows_of(made) if made.is_file() else rows_of_hub(self.named, self.commit)

    def run(self, job: JobContext) -> None:
        count = 0

        def counted() -> Iterator[Row]:
            nonlocal count
            for _, row in rows_of_hub(self.named, self.commit):
                count += 1
                job.progress.advance(f"rows of {self.repository}", count, None)
                yield row

        write_lines_atomic(self.path(job.root), counted(), default=as_json)
        print(f"{count:,} rows of {self.named}, commit {self.commit}")
        job.finish(job.output, report={"rows": count, "commit": self.commit})


class HubExamples(RowExamples):
    """The examples of a data set on the hub."""

    source: Of[HubRows]

    def path(self, root: Path) -> Path:
        return self.source.path(root)

    def rows(self, root: Path) -> Iterator[tuple[str, Row]]:
        return self.source.rows(root)

    @property
    def size(self) -> DataSize:
        return _size_of(self.source, self.options)


@lru_cache(maxsize=32)
def _size_of(source: HubRows, options: DataOptions) -> DataSize:
    return size_of_rows(rows_of_hub(source.named, source.commit), str(source.named), options)


def hub_examples(name: str, named: HubData, commit: str, options: DataOptions) -> HubExamples:
    """The examples of a split.

    Args:
        name: Of the training set.
        named: The split.
        commit: Of its repository.
        options: How its rows are read.
    """
    about: dict[str, Any] = {"repository": named.name.repo, "configuration": named.configuration, "split": named.split}
    rows = HubRows(title=f"rows of {named}", commit=commit, revision=named.name.revision, **about)
    return HubExamples(name=name, source=rows, **said(options))
