"""`harness.lock.json` in a run's folder: the commit of each model and data set that the run takes from the hub by a revision.

    {"models": {"org/name@main": "<commit>"}, "datasets": {"org/rows@v1": "<commit>"}}

A revision is resolved once, when the run is first planned, and stays: the same command next month uses the same commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dskd import hub
from dskd.errors import InputError
from dskd.hub.names import HubName, Kind, is_commit
from dskd.io import read_object
from harness.runs.store import require_writable, write_json_atomic

LOCK = "harness.lock.json"
_SECTIONS: dict[Kind, str] = {"model": "models", "dataset": "datasets"}


class HubLock:
    """The commits of a run.

    Attributes:
        path: The file; None where there is no folder to keep one in: each revision is then resolved once for the command.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """The lock of a run's folder, which need not exist. InputError for a damaged file."""
        self.path = None if folder is None else folder / LOCK
        self._commits: dict[tuple[Kind, str], str] = {}
        self._changed = False
        if self.path is not None and self.path.is_file():
            self._commits = _read(self.path)

    def __iter__(self) -> Iterator[tuple[Kind, HubName, str]]:
        """Kind, name and commit of each entry."""
        for (kind, text), commit in sorted(self._commits.items()):
            repo, _, revision = text.partition("@")
            yield kind, HubName(repo, revision), commit

    def resolve(self, name: HubName, kind: Kind = "model") -> str:
        """The commit that the run uses for a name: the locked one, else the hub's now, which is then locked.

        Processes that this one starts use it too, for example where an adapter names its base.

        Args:
            name: repository and revision.
            kind: of the repository.

        Returns:
            The commit.

        Raises:
            InputError: where it cannot be resolved (`dskd.hub.resolve`).
        """
        if is_commit(name.revision):
            return name.revision
        key = kind, str(name)
        if key not in self._commits:
            self._commits[key] = hub.resolve(name.repo, name.revision, kind)
            self._changed = True
        hub.pin(name.repo, name.revision, self._commits[key], kind)
        return self._commits[key]

    def update(self, name: HubName, kind: Kind = "model") -> tuple[str | None, str]:
        """Move a name to the commit that its revision has on the hub now.

        Args:
            name: repository and revision.
            kind: of the repository.

        Returns:
            The commit before, None for one that was not locked, and the new one.

        Raises:
            InputError: where the hub does not say it.
        """
        commit = hub.newest(name.repo, name.revision, kind)
        key = kind, str(name)
        before = self._commits.get(key)
        if commit != before:
            self._commits[key], self._changed = commit, True
            hub.pin(name.repo, name.revision, commit, kind)
        return before, commit

    def moved(self) -> list[tuple[Kind, HubName, str, str]]:
        """The entries whose revision has another commit on the hub by now.

        Returns:
            Kind, name, the locked commit and the newer one. Nothing is said of what the hub has no answer to; without network no
            more than one name is asked for.
        """
        found = []
        for kind, name, commit in self:
            try:
                newest = hub.newest(name.repo, name.revision, kind)
            except hub.HubUnreachable:
                break
            except InputError:  # gone, or no longer readable: the cache has what the run needs
                continue
            if newest != commit:
                found.append((kind, name, commit, newest))
        return found

    def write(self) -> None:
        """Write the file where something is new. What another command has locked in the meantime stays."""
        if self.path is None or not self._changed:
            return
        require_writable(self.path.parent, str(self.path.parent))
        merged = (_read(self.path) if self.path.is_file() else {}) | self._commits
        content = {
            section: {name: commit for (kind, name), commit in sorted(merged.items()) if kind == wanted}
            for wanted, section in _SECTIONS.items()
        }
        write_json_atomic(self.path, content)
        self._changed = False


def _read(path: Path) -> dict[tuple[Kind, str], str]:
    content, found = read_object(path), {}
    for kind, section in _SECTIONS.items():
        entries = content.get(section, {})
        if not isinstance(entries, dict):
            raise InputError(
                f"{path}: {section} is no object of names and commits; fix: remove the file, or put it back"
            )
        for name, commit in entries.items():
            if not isinstance(commit, str) or not is_commit(commit) or "@" not in name:
                raise InputError(
                    f"{path}: {section}.{name}: is no name with a commit of 40 digits; fix: correct or remove it"
                )
            found[kind, name] = commit
    return found
