"""Data sets of the Hugging Face hub: a name with configuration and split, and the rows of one commit, through `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd import hub
from dskd.data.formats import Row, data_suffix, rows_of_table
from dskd.data.progress_bars import without_bars
from dskd.errors import InputError

_BATCH = 512
_COLON = re.compile(r":(?![^\[]*\])")  # not those of a slice, `train[:10%]`


@dataclass(frozen=True)
class HubData:
    """A split of a data set on the hub. configuration: None where it has one alone."""

    name: hub.HubName
    configuration: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return ":".join(filter(None, (str(self.name), self.configuration, self.split)))


def parse_hub_data(text: str) -> HubData | None:
    """The data set on the hub that a text names.

    Args:
        text: `org/name[@revision][:[configuration:]split]`, as `openai/gsm8k:main:train`.

    Returns:
        None for a path that exists, or that ends as a data file does, and for what cannot be such a name.

    Raises:
        InputError: For a name with more parts than these.
    """
    head, *rest = _COLON.split(text)
    if Path(text).exists() or data_suffix(Path(head)) is not None or (name := hub.parse(head)) is None:
        return None
    if len(rest) > 2 or "" in rest:
        raise InputError(f"{text}: is no data set; fix: write org/name:split, or org/name:configuration:split")
    return HubData(name, rest[0] if len(rest) == 2 else None, rest[-1]) if rest else HubData(name)


def rows_of_hub(data: HubData, commit: str) -> Iterator[tuple[str, Row]]:
    """The rows of a split at a commit, downloaded where they are not in the cache.

    Args:
        data: The split.
        commit: Its commit, as `dskd.hub.resolve` says it.

    Yields:
        (the place in words, and the row), in order.

    Raises:
        InputError: For what is not there or cannot be had.
    """
    dataset = _load(data, commit)
    number = 0
    for table in dataset.with_format("arrow").iter(_BATCH):
        for row in rows_of_table(table):
            number += 1
            yield f"{data.name.repo}:{data.split}: row {number}", row
    if not number:
        raise InputError(f"{data}: has no rows; fix: name a split that has some")


def _load(data: HubData, commit: str) -> Any:
    import datasets

    known = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)
    try:
        with without_bars(keep_on_terminals=True):
            dataset = datasets.load_dataset(data.name.repo, data.configuration, split=data.split, revision=commit)
    except datasets.exceptions.DatasetNotFoundError as error:
        # It is there, for its commit is known. Whether it may not be read, a file that everybody may read says.
        hub.snapshot(data.name.repo, commit, kind="dataset", files=("README.md", ".gitattributes"))
        raise InputError(f"{data}: {_reason(error)}; fix: run it again with a network") from error
    except known as error:
        raise InputError(f"{data}: {_reason(error)}; fix: correct the name, as org/name:configuration:split") from error
    cached = {Path(file["filename"]).parent.name for file in dataset.cache_files}
    if cached - {commit}:
        raise InputError(
            f"{data}: the cache holds another commit of it ({', '.join(sorted(cached))}), and {commit} cannot be downloaded; "
            "fix: run it again with a network"
        )
    return dataset


def _reason(error: Exception) -> str:
    """What is wrong, in a line: unknown configurations and splits among it, with those that there are."""
    import datasets

    if isinstance(error, datasets.exceptions.DatasetGenerationError) and error.__cause__ is not None:
        return f"its files cannot be read ({(str(error.__cause__).splitlines() or ['unreadable'])[0]})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "load_dataset(" not in line]
    return " ".join(lines[:2]).removesuffix(" Example of usage:").rstrip(".") or type(error).__name__
