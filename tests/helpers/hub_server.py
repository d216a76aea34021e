"""A hub over HTTP on 127.0.0.1, for the real client huggingface_hub.

    with HubServer(tmp_path) as hub:
        commit = hub.add_model("org/name", folder)                 # again, with other files: `main` moves
        hub.add_dataset("org/rows", folder, revision="v2")
        subprocess.run([...], env=os.environ | hub.env)            # a client of its own process: the usual way
        hub.point_client_here(monkeypatch)                         # the client of this process, already imported

The client reads HF_ENDPOINT when it is imported. So a test runs the client in a process of its own with `hub.env`, or calls
`point_client_here`, which sets what the client keeps (and the environment, for processes that the test starts).

Served: what a repository is at a revision, its tree, files (HEAD, ranges, redirects of large files to another host name as to a CDN),
branches and tags, gated and private ones, and pushing: create, preupload, large files, commit. `hub.requests` is what was asked.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from helpers.hub_answers import Answers
from helpers.hub_repositories import HubRepository, HubStorage

TOKEN = "hf_writer"  # the token of the one user who may write
USER = "tester"


class HubServer:
    """The hub. It serves while it is entered.

    Attributes:
        requests: Method and path of each request, in order.
        repositories: By kind and id.
        tokens: The name of the user of each token.
        closed: Organisations in which no user may write.
        connections: Those that are open.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = HubStorage(folder / "hub-blobs")
        self.repositories: dict[tuple[str, str], HubRepository] = {}
        self.requests: list[tuple[str, str]] = []
        self.tokens = {TOKEN: USER}
        self.closed: set[str] = set()
        self.connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> HubServer:
        handler = type("Handler", (Answers,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving, as a network that is gone. The address stays this hub's until the test ends."""
        if self._server is not None:
            self._port = self.port
            self._server.shutdown()
            self._server.server_close()
            self._server = None
            for connection in [*self.connections]:
                with contextlib.suppress(OSError):  # the client has closed it
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def port(self) -> int:
        """The port that it serves, or has served."""
        return int(self._server.server_address[1]) if self._server is not None else self._port

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def cache(self) -> Path:
        """The client's cache of repositories."""
        return self.folder / "hf-home" / "hub"

    @property
    def env(self) -> dict[str, str]:
        """The settings of a process whose client is to talk to this hub, with an empty cache of its own and no token."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.folder / "hf-home"),
            "HF_HUB_CACHE": str(self.cache),
            "HF_DATASETS_CACHE": str(self.folder / "hf-home" / "datasets"),
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def point_client_here(self, monkeypatch: pytest.MonkeyPatch, *, token: str | None = None) -> None:
        """Let the client of this process talk to this hub until the test ends, and all processes that the test starts.

        Args:
            monkeypatch: of the test.
            token: of the user; none without one.
        """
        from huggingface_hub import constants

        for name, value in (self.env | ({"HF_TOKEN": token} if token else {})).items():
            monkeypatch.setenv(name, value)
        kept: dict[str, Any] = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(self.cache),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_TOKEN_PATH": str(self.folder / "hf-home" / "token"),
        }
        for name, value in kept.items():
            monkeypatch.setattr(constants, name, value)

    def add_model(self, repository: str, folder: Path, *, revision: str = "main", gated: bool = False) -> str:
        """Commit all files of a folder as a model; a revision that exists moves to the new commit.

        Returns:
            The commit's name.
        """
        return self._add("model", repository, folder, revision, gated)

    def add_dataset(self, repository: str, folder: Path, *, revision: str = "main", gated: bool = False) -> str:
        """Commit all files of a folder as a data set; a revision that exists moves to the new commit.

        Returns:
            The commit's name.
        """
        return self._add("dataset", repository, folder, revision, gated)

    def _add(self, kind: str, name: str, folder: Path, revision: str, gated: bool) -> str:
        repository = self.repositories.setdefault((kind, name), HubRepository(kind, name))
        repository.gated = gated
        return repository.commit(self.storage.files_of(folder), revision, f"files of {folder.name}")

    def model(self, name: str) -> HubRepository:
        """A model's repository."""
        return self.repositories["model", name]

    def dataset(self, name: str) -> HubRepository:
        """A data set's repository."""
        return self.repositories["dataset", name]

    def cut_off(self, name: str, file: str, after: int, *, times: int | None = None, kind: str = "model") -> None:
        """End answers of a file after so many bytes of it, as a connection that breaks.

        Args:
            name: of the repository.
            file: its path there.
            after: bytes of the file that come through; a later range breaks at once.
            times: how many answers break; all without it.
            kind: `model` or `dataset`.
        """
        self.repositories[kind, name].cuts[file] = after, times

    def files(self, name: str, revision: str = "main", kind: str = "model") -> dict[str, bytes]:
        """The files of a repository at a revision by path, for tests of what was pushed."""
        repository = self.repositories[kind, name]
        commit = repository.resolve(revision)
        assert commit is not None, f"{name} has no revision {revision}"
        return {path: file.blob.read_bytes() for path, file in repository.commits[commit].items()}
