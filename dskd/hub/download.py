"""A commit to a folder in the hub's cache: what is there is used, what is missing is downloaded, with its size told first."""

from __future__ import annotations

import logging
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from dskd.errors import InputError
from dskd.hub import commits
from dskd.hub.cache import snapshot_folder
from dskd.hub.errors import hub_errors
from dskd.hub.files import INDEX, settings_files, weight_files
from dskd.hub.names import HubName, Kind, parse
from dskd.hub.remote_code import is_trusted
from dskd.io import read_object

log = logging.getLogger(__name__)

_ADAPTER = "adapter_config.json"


def settings(repo: str, commit: str, *, weights: bool = True) -> Path:
    """The folder of a model with its small files: configurations, tokenizer, chat templates, and the index of its weights.

    Args:
        repo: `org/name`.
        commit: its 40 hexadecimal digits.
        weights: whether the repository has to have weights that can be loaded, so that it is known before anything is planned on
            them; not for a tokenizer alone.

    Returns:
        The folder in the hub's cache.

    Raises:
        HubUnreachable: where they are not in the cache and there is no network.
        InputError: where they cannot be read, and for a repository whose weights are pickles alone.
    """
    place = _settings(repo, commit)
    if weights:
        weights_of(repo, commit, place)
    return place


def snapshot(repo: str, commit: str, *, kind: Kind = "model", files: Sequence[str] | None = None) -> Path:
    """The folder of a commit in the hub's cache, with what is missing downloaded.

    Args:
        repo: `org/name`.
        commit: its 40 hexadecimal digits.
        kind: of the repository.
        files: patterns of the files that are wanted, as `data/*.parquet`. Without them: of a model all that loading it needs
            (settings and safetensors, never pickles), of a data set everything.

    Returns:
        The folder. Its files are links into the cache.

    Raises:
        HubUnreachable: where files are not in the cache and there is no network.
        InputError: where they cannot be read, do not fit the disk, or the download broke off.
    """
    if files is not None or kind == "dataset":
        patterns = ["*"] if files is None else files
        return _fetch(repo, commit, kind, lambda names: [n for n in names if any(fnmatchcase(n, p) for p in patterns)])
    place = _settings(repo, commit)
    weights = weights_of(repo, commit, place)
    return _fetch(repo, commit, kind, lambda _: weights)


def model_folder(reference: str | Path, *, where: str = "") -> Path:
    """A model's folder: a folder as it is, a name on the hub as its snapshot with all that loading it needs.

    Args:
        reference: the path of a folder, or `org/name[@revision]`.
        where: what stands before errors, as `--teacher`.

    Returns:
        The folder; where an adapter's base is a name on the hub, the base is in the cache as well.

    Raises:
        InputError: for a name that cannot be had. A path that does not exist is returned: who reads it says so.
    """
    try:
        name = parse(str(reference))
        if name is None:
            folder = Path(reference)
        else:
            commit = commits.resolve(name.repo, name.revision)
            log.info("%s is commit %s", name, commit)
            folder = snapshot(name.repo, commit)
        base = base_on_hub(folder)
        if base is not None:
            snapshot(base.repo, commits.resolve(base.repo, base.revision))
    except InputError as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from error
    return folder


def tokenizer_folder(reference: str | Path, *, where: str = "") -> Path:
    """A tokenizer's folder: a folder as it is, a name on the hub as its snapshot with the small files alone.

    Args:
        reference: the path of a folder, or `org/name[@revision]`.
        where: what stands before errors, as `--teacher`.

    Returns:
        The folder.

    Raises:
        InputError: for a name that cannot be had. A path that does not exist is returned: who reads it says so.
    """
    name = parse(str(reference))
    if name is None:
        return Path(reference)
    try:
        commit = commits.resolve(name.repo, name.revision)
        log.info("%s is commit %s", name, commit)
        return settings(name.repo, commit, weights=False)
    except InputError as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from error


def base_on_hub(folder: Path) -> HubName | None:
    """The name on the hub that an adapter's folder gives as its base; None where the base is a folder, or it is no adapter."""
    if not (folder / _ADAPTER).is_file():
        return None
    said = read_object(folder / _ADAPTER)
    base, revision = said.get("base_model_name_or_path"), said.get("revision")
    if not isinstance(base, str) or (folder / base).exists():
        return None
    name = parse(base)
    return HubName(name.repo, revision) if name is not None and isinstance(revision, str) and revision else name


def weights_of(repo: str, commit: str, place: Path) -> list[str]:
    """The weight files of a commit whose settings are in `place`. InputError where it has none but pickles."""
    index = place / INDEX
    shards = read_object(index).get("weight_map") if index.is_file() else None
    if shards is not None and not isinstance(shards, dict):
        raise InputError(f"{index}: names no shards (weight_map); fix: give another revision")
    return weight_files(_tree(repo, commit, "model"), None if shards is None else shards.values(), f"{repo}@{commit}")


def _settings(repo: str, commit: str) -> Path:
    code = is_trusted(repo, commit)
    return _fetch(repo, commit, "model", lambda names: settings_files(names, code=code))


def _fetch(repo: str, commit: str, kind: Kind, choose: Callable[[Collection[str]], list[str]]) -> Path:
    """Have the chosen files of a commit in its folder."""
    sizes, place = _tree(repo, commit, kind), snapshot_folder(repo, commit, kind)
    missing = [name for name in choose(sizes) if not (place / name).is_file()]
    if missing:
        _download(HubName(repo, commit), kind, missing, sum(sizes[name] for name in missing))
    return place


def _tree(repo: str, commit: str, kind: Kind) -> dict[str, int]:
    """The size of each file of a commit: as the cache remembers it, else as the hub says, else (no network) what is here."""
    from huggingface_hub import HfApi, constants, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        return {file.path: file.size for file in get_cached_repo_tree(repo, repo_type=kind, revision=commit)}
    except CachedRepoTreeNotFoundError:
        pass
    place = snapshot_folder(repo, commit, kind)
    if constants.HF_HUB_OFFLINE and place.is_dir():
        here = [path for path in place.rglob("*") if path.is_file()]
        return {path.relative_to(place).as_posix(): path.stat().st_size for path in here}
    with hub_errors(f"{repo}@{commit}", kind):
        tree = HfApi().list_repo_tree(repo, recursive=True, revision=commit, repo_type=kind)
        return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


def _download(name: HubName, kind: Kind, files: list[str], size: int) -> None:
    from huggingface_hub import constants, snapshot_download

    cache = Path(constants.HF_HUB_CACHE)
    if not constants.HF_HUB_OFFLINE:
        _require_room(name, cache, size)
        count = f"{len(files)} file{'s' * (len(files) != 1)}"
        log.info("downloading %s of %s (%s) into %s", count, name.repo, _readable(size), cache)
    exact = [re.sub(r"([\[*?])", r"[\1]", file) for file in files]
    with hub_errors(str(name), kind), _bars_on_terminals_only():
        snapshot_download(name.repo, repo_type=kind, revision=name.revision, allow_patterns=exact)


def _require_room(name: HubName, cache: Path, size: int) -> None:
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise InputError(
            f"{name}: needs {_readable(size)}, and {existing} has {_readable(free)} free; fix: free some space, or set HF_HOME to "
            "a folder on another disk"
        )


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Bars of progress where a person sees them, and none in a log."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _readable(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
