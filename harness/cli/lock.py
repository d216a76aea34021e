"""`harness lock`: the commits that a run takes from the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from dskd import hub
from dskd.errors import InputError
from dskd.hub.names import HubName, Kind, is_commit
from harness.cli.options import PATH, json_option, variables_option
from harness.cli.output import print_json, print_table
from harness.config.matrix import Matrix
from harness.config.matrix_file import find_matrix, read_matrix
from harness.config.served import ServedSource
from harness.config.sources import FinishedModel, HubDataset, NewModel
from harness.planning.plan import run_folder
from harness.runs.hub_lock import LOCK, HubLock
from harness.suggestions import did_you_mean

EPILOG = """\b
Examples:
  harness lock --matrix my.yaml
  harness lock --matrix my.yaml --update
  harness lock --matrix my.yaml --update Qwen/Qwen2.5-0.5B
  harness lock --output-dir runs/mine

\b
After an update, what was made from the old commit is stale, and the next run makes it again."""

_ALL = "*"


@click.command("lock", epilog=EPILOG)
@click.option("--matrix", "matrix_name", metavar="NAME|FILE", help="Matrix: a shipped one by name, or a file.")
@variables_option
@click.option("--output-dir", type=PATH, metavar="DIR", help="Folder of the run. [default: runs/NAME of the matrix]")
@click.option(
    "--update",
    is_flag=False,
    flag_value=_ALL,
    metavar="[ORG/NAME]",
    help="Move to the newest commit: all names, or the one that is given.",
)
@json_option
def command(
    matrix_name: str | None, variables: Mapping[str, str], output_dir: Path | None, update: str | None, as_json: bool
) -> None:
    """Show the commits of the models and data sets that a run takes from the hub, or move them on purpose.

    A revision (`main` unless given) is resolved when a run is first planned, and stays: see docs/hub.md.
    """
    if matrix_name is None and output_dir is None:
        raise InputError("lock: needs a run; fix: give --matrix or --output-dir")
    matrix = None if matrix_name is None else read_matrix(find_matrix(matrix_name), variables)
    folder = run_folder(matrix, output_dir) if matrix is not None else output_dir
    assert folder is not None
    if matrix is None and not (folder / LOCK).is_file():
        raise InputError(
            f"--output-dir {folder}: has no {LOCK}; fix: give the folder of a run that takes something from the hub"
        )
    lock = HubLock(folder)
    names = dict.fromkeys(
        [*(_names_in(matrix) if matrix is not None else ()), *((kind, name) for kind, name, _ in lock)]
    )
    rows = _updated(lock, _chosen([*names], update)) if update is not None else _shown(lock, [*names])
    lock.write()
    if as_json:
        print_json([{key: value for key, value in row.items() if key != "said"} for row in rows])
    elif rows:
        print_table(
            ("name", "kind", "commit", ""), [(row["name"], row["kind"], row["commit"], row["said"]) for row in rows]
        )
    else:
        click.echo("Nothing of this run comes from the hub.")


def _names_in(matrix: Matrix) -> Iterator[tuple[Kind, HubName]]:
    """What a matrix names on the hub."""
    for model in matrix.models.values():
        places: list[object] = [model.place] if isinstance(model, FinishedModel) else []
        if isinstance(model, NewModel) and model.tokenizer.path is not None:
            places = [hub.parse(model.tokenizer.path)]
        if isinstance(model, ServedSource):
            places = list(dict.fromkeys((model.head_place, model.tokenizer_place)))
        for place in places:
            if isinstance(place, HubName) and not is_commit(place.revision):
                yield "model", place
    for data in matrix.data.values():
        if isinstance(data, HubDataset) and not is_commit(data.named.name.revision):
            yield "dataset", data.named.name


def _chosen(names: list[tuple[Kind, HubName]], asked: str) -> list[tuple[Kind, HubName]]:
    found = [(kind, name) for kind, name in names if asked in (_ALL, str(name), name.repo)]
    if not found and asked != _ALL:
        known = [str(name) for _, name in names]
        raise InputError(f"--update {asked}: this run takes no such name from the hub{did_you_mean(asked, known)}")
    return found


def _shown(lock: HubLock, names: list[tuple[Kind, HubName]]) -> list[dict[str, Any]]:
    commits = {(kind, name): lock.resolve(name, kind) for kind, name in names}
    newer = {(kind, name): commit for kind, name, _, commit in lock.moved()}
    return [
        _row(
            kind,
            name,
            commit,
            newest=newer.get((kind, name)),
            said=f"moved to {newer[kind, name]}" if (kind, name) in newer else "",
        )
        for (kind, name), commit in commits.items()
    ]


def _updated(lock: HubLock, names: list[tuple[Kind, HubName]]) -> list[dict[str, Any]]:
    rows = []
    for kind, name in names:
        before, commit = lock.update(name, kind)
        said = "unchanged" if before == commit else f"was {before}" if before else "new"
        rows.append(_row(kind, name, commit, before=before, said=said))
    return rows


def _row(kind: Kind, name: HubName, commit: str, **more: Any) -> dict[str, Any]:
    return {"name": str(name), "kind": kind, "commit": commit, **more}
