"""The repositories of the imitated hub (hub_server.py): commits of files, branches and tags that move, who may read them.

A repository is what git would keep, as far as huggingface_hub sees it: a commit is the whole list of files, named by 40 hexadecimal
digits; a file is in git (its ETag is git's SHA-1) or in large file storage (SHA-256), as on the hub.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".parquet", ".arrow", ".model", ".gz", ".zst", ".zip")
LARGE_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class HubFile:
    """A file of a commit. Its bytes lie in the server's own folder, so that what a test changes later does not change a commit."""

    path: str
    blob: Path
    size: int
    git_sha1: str
    sha256: str
    large: bool

    @property
    def etag(self) -> str:
        """As the hub has it: SHA-256 of what is in large file storage, git's SHA-1 of the rest."""
        return self.sha256 if self.large else self.git_sha1

    def tree_entry(self) -> dict[str, Any]:
        """The file in the answer about a tree."""
        entry: dict[str, Any] = {"type": "file", "path": self.path, "size": self.size, "oid": self.git_sha1}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return entry


@dataclass
class HubRepository:
    """A repository of the imitated hub.

    Attributes:
        kind: `model` or `dataset`.
        commits: The files of each commit by path, by the commit's name.
        messages: The message of each commit.
        branches, tags: Where they point.
        gated: Whether only `readers` may read files; its description and list of files are for all, as on the hub.
        readers: The tokens that may read its files, if it is gated or private.
        cuts: How many more answers of a file (None: all) end after so many bytes.
    """

    kind: str
    id: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, HubFile]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    cuts: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def commit(self, files: dict[str, HubFile], branch: str, message: str = "") -> str:
        """Make a commit of these files and move the branch to it.

        Returns:
            The commit's name. Two commits have two names, though their files are the same.
        """
        parts = [
            self.kind,
            self.id,
            str(len(self.commits)),
            message,
            *(f"{path} {files[path].etag}" for path in sorted(files)),
        ]
        name = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        self.commits[name], self.messages[name], self.branches[branch] = dict(files), message, name
        return name

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's name stands for; None where there is none."""
        if revision in self.commits:
            return revision
        return self.branches.get(revision) or self.tags.get(revision)

    def may_read(self, token: str | None) -> bool:
        """Whether its files may be read with this token."""
        return not (self.gated or self.private) or token in self.readers

    def info(self, commit: str) -> dict[str, Any]:
        """The answer about the repository at a commit."""
        siblings = [{"rfilename": path} for path in sorted(self.commits[commit])]
        return {
            "_id": hashlib.sha1(self.id.encode()).hexdigest()[:24],
            "id": self.id,
            "modelId": self.id,
            "author": self.id.split("/")[0],
            "sha": commit,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": siblings,
        }

    def tree(self, commit: str, folder: str, recursive: bool) -> list[dict[str, Any]] | None:
        """The files and folders in a folder of a commit; None where there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        inside = {path: file for path, file in self.commits[commit].items() if path.startswith(prefix)}
        if folder and not inside:
            return None
        folders = {
            prefix + "/".join(parts[:depth])
            for path in inside
            for parts in [path[len(prefix) :].split("/")]
            for depth in range(1, len(parts) if recursive else min(2, len(parts)))
        }
        entries = [file.tree_entry() for path, file in inside.items() if recursive or "/" not in path[len(prefix) :]]
        entries += [{"type": "directory", "path": path, "size": 0, "oid": _name_of(path)} for path in folders]
        return sorted(entries, key=lambda entry: str(entry["path"]))


class HubStorage:
    """The bytes of all files, by content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, path: str, content: bytes) -> HubFile:
        """Keep a file's bytes, and say what it is."""
        sha256 = self.put_blob(content)
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        large = path.endswith(LARGE) or len(content) > LARGE_BYTES
        return HubFile(path, self.folder / sha256, len(content), git, sha256, large)

    def put_blob(self, content: bytes) -> str:
        """Keep bytes, and say their SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        blob = self.folder / sha256
        if not blob.exists():
            blob.write_bytes(content)
        return sha256

    def blob(self, sha256: str) -> Path | None:
        """Where the bytes with this SHA-256 lie; None where they were never sent."""
        path = self.folder / sha256
        return path if path.is_file() else None

    def files_of(self, folder: Path) -> dict[str, HubFile]:
        """Keep all files of a folder. Links are followed."""
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            name: self.put(name, path.read_bytes()) for path in found for name in [path.relative_to(folder).as_posix()]
        }


def _name_of(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()
