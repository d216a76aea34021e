"""What the imitated hub (hub_server.py) answers to each request of huggingface_hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

from helpers.hub_pushes import commit_files, create_repository, large_file_batch, upload_modes
from helpers.hub_repositories import HubFile, HubRepository

if TYPE_CHECKING:
    from helpers.hub_server import HubServer

_REPOSITORY = r"(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
_FILE = r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/(?:resolve|raw)/(?P<revision>[^/]+)/(?P<path>.+)"
_ROUTES: list[tuple[str, str, str]] = [
    ("GET", rf"/api/{_REPOSITORY}", "_info"),
    ("GET", rf"/api/{_REPOSITORY}/revision/(?P<revision>[^/]+)", "_info"),
    ("GET", rf"/api/{_REPOSITORY}/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", "_tree"),
    ("POST", rf"/api/{_REPOSITORY}/paths-info/(?P<revision>[^/]+)", "_paths_info"),
    ("GET", rf"/api/{_REPOSITORY}/refs", "_refs"),
    ("GET", r"/api/whoami-v2", "_who"),
    ("POST", r"/api/validate-yaml", "_validate_card"),
    ("POST", r"/api/repos/create", "_create"),
    ("POST", rf"/api/{_REPOSITORY}/preupload/(?P<revision>[^/]+)", "_preupload"),
    ("POST", rf"/api/{_REPOSITORY}/commit/(?P<revision>[^/]+)", "_commit"),
    ("POST", r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "_large_batch"),
    ("PUT", r"/upload/(?P<sha256>[0-9a-f]{64})", "_put_large"),
    ("POST", r"/verify", "_verify_large"),
    ("GET", r"/cdn/(?P<kind>[^/]+)/(?P<name>[^/]+/[^/]+)/(?P<sha256>[0-9a-f]{64})/(?P<path>.+)", "_large_file"),
    ("HEAD", _FILE, "_file"),
    ("GET", _FILE, "_file"),
]
ROUTES = [(method, re.compile(pattern), answer) for method, pattern, answer in _ROUTES]
CHUNK = 64 * 1024


class Refused(Exception):
    """An answer that is an error of the hub's, with the code by which the client knows it."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Answers(BaseHTTPRequestHandler):
    """One connection of a client."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        address = urlsplit(self.path)
        self.hub.requests.append((self.command, unquote(address.path)))
        self.query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        self.body = self._read_body()
        try:
            for method, pattern, answer in ROUTES:
                found = pattern.fullmatch(address.path) if method == self.command else None
                if found:
                    respond: Callable[..., None] = getattr(self, answer)
                    respond(**{key: unquote(value or "") for key, value in found.groupdict().items()})
                    return
            raise Refused(404, f"the imitated hub has no {self.command} {address.path}")
        except Refused as refused:
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            self._send_json({"error": str(refused)}, refused.status, headers | {"X-Error-Message": str(refused)})

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def setup(self) -> None:
        """Remember the connection, which is kept open between requests, so that the hub can break it."""
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        """Forget the connection."""
        self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr: `hub.requests` is the log."""

    # --- reading ----------------------------------------------------------------------------------------------------------------

    def _info(self, kind: str, name: str, revision: str = "main") -> None:
        repository = self._repository(kind, name)
        self._send_json(repository.info(self._commit_of(repository, revision)))

    def _tree(self, kind: str, name: str, revision: str, path: str) -> None:
        repository = self._repository(kind, name)
        recursive = self.query.get("recursive", "").lower() in ("true", "1")
        entries = repository.tree(self._commit_of(repository, revision), path.rstrip("/"), recursive)
        if entries is None:
            raise Refused(404, f"{path} does not exist on {revision}", "EntryNotFound")
        self._send_json(self._expanded(repository, revision, entries))

    def _paths_info(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind, name)
        form = parse_qs(self.body.decode())
        self.query |= {key: values[-1] for key, values in form.items()}
        asked = {path.strip("/") for path in form.get("paths", [])}
        entries = repository.tree(self._commit_of(repository, revision), "", recursive=True) or []
        self._send_json(self._expanded(repository, revision, [entry for entry in entries if entry["path"] in asked]))

    def _expanded(
        self, repository: HubRepository, revision: str, entries: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        if self.query.get("expand", "").lower() not in ("true", "1"):
            return entries
        commit = self._commit_of(repository, revision)
        last = {"id": commit, "title": repository.messages[commit], "date": "2026-01-01T00:00:00.000Z"}
        return [entry | {"lastCommit": last} for entry in entries]

    def _refs(self, kind: str, name: str) -> None:
        repository = self._repository(kind, name)
        answer: dict[str, Any] = {"converts": [], "pullRequests": []}
        for key, folder, refs in (("branches", "heads", repository.branches), ("tags", "tags", repository.tags)):
            answer[key] = [
                {"name": ref, "ref": f"refs/{folder}/{ref}", "targetCommit": commit} for ref, commit in refs.items()
            ]
        self._send_json(answer)

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        repository = self._repository(kind or "models", name)
        commit = self._commit_of(repository, revision)
        if not repository.may_read(self._token):
            status = 403 if self._token else 401
            raise Refused(status, f"Access to {repository.kind} {name} is restricted", "GatedRepo")
        file = repository.commits[commit].get(path)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if file is None:
            raise Refused(404, f"Entry not found: {path}", "EntryNotFound")
        if not file.large:
            self._send_bytes(repository, file, headers | {"ETag": f'"{file.etag}"'})
            return
        # Large files come from another host: the client must take size and ETag from this answer, and send no token there.
        place = f"http://localhost:{self.hub.port}/cdn/{repository.kind}/{name}/{file.sha256}/{quote(path)}"
        linked = {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.etag}"', "Location": place}
        self._send(b"Found. Redirecting", 302, headers | linked)

    def _large_file(self, kind: str, name: str, sha256: str, path: str) -> None:
        repository = self.hub.repositories[kind, name]
        file = next(
            (files[path] for files in repository.commits.values() if path in files and files[path].sha256 == sha256),
            None,
        )
        if file is None:
            raise Refused(404, "no such object")
        self._send_bytes(repository, file, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})

    # --- writing ----------------------------------------------------------------------------------------------------------------

    def _who(self) -> None:
        self._send_json({"type": "user", "name": self._writer(), "fullname": self._writer(), "orgs": []})

    def _validate_card(self) -> None:
        content = str(json.loads(self.body)["content"])
        head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", content, re.DOTALL)
        try:
            data = yaml.safe_load(head[1]) if head else {}
        except yaml.YAMLError as error:
            self._send_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return
        warnings = [] if data else [{"message": "empty or missing yaml metadata in repo card"}]
        self._send_json({"errors": [], "warnings": warnings})

    def _create(self) -> None:
        user, asked = self._writer(), json.loads(self.body)
        status, answer = create_repository(self.hub, user, asked, self._token or "")
        self._send_json(answer, status)

    def _preupload(self, kind: str, name: str, revision: str) -> None:
        self._writer()
        self._send_json(upload_modes(self._repository(kind, name), revision, json.loads(self.body)))

    def _large_batch(self, kind: str, name: str) -> None:
        self._writer()
        self._repository(kind or "models", name)
        self._send_json(large_file_batch(self.hub, json.loads(self.body)))

    def _put_large(self, sha256: str) -> None:
        if self.hub.storage.put_blob(self.body) != sha256:
            raise Refused(400, "what was sent is not what was announced")
        self._send(b"", 200)

    def _verify_large(self) -> None:
        asked = json.loads(self.body)
        blob = self.hub.storage.blob(asked["oid"])
        if blob is None or blob.stat().st_size != asked["size"]:
            raise Refused(404, f"object {asked['oid']} is not here")
        self._send_json({"message": "verified"})

    def _commit(self, kind: str, name: str, revision: str) -> None:
        self._writer()
        repository = self._repository(kind, name)
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        commit = commit_files(self.hub, repository, revision, lines)
        if commit is None:
            raise Refused(412, "a commit has happened since, or a large file was never sent")
        place = f"{self.hub.url}/{'datasets/' if repository.kind == 'dataset' else ''}{name}/commit/{commit}"
        self._send_json({"success": True, "commitOid": commit, "commitUrl": place, "hookOutput": ""})

    # --- parts ------------------------------------------------------------------------------------------------------------------

    @property
    def _token(self) -> str | None:
        given = self.headers.get("Authorization", "")
        return given.removeprefix("Bearer ").strip() or None

    def _writer(self) -> str:
        name = self.hub.tokens.get(self._token or "")
        if name is None:
            raise Refused(401, "Invalid username or password.")
        return name

    def _repository(self, kind: str, name: str) -> HubRepository:
        repository = self.hub.repositories.get((kind.rstrip("/").removesuffix("s"), name))
        if repository is None or (repository.private and not repository.may_read(self._token)):
            # The hub does not say to a stranger whether a repository is missing or private.
            raise Refused(404 if self._token else 401, "Repository not found", "RepoNotFound")
        return repository

    def _commit_of(self, repository: HubRepository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send_json(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(answer).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, content: bytes, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status, HTTPStatus(status).phrase)
        for key, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_bytes(self, repository: HubRepository, file: HubFile, headers: dict[str, str]) -> None:
        """A file or the range of it that was asked for, as far as it is not cut off."""
        start, end = 0, file.size - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, end = int(asked[1]), min(end, int(asked[2])) if asked[2] else end
            if start > end:
                self._send(b"", 416, {"Content-Range": f"bytes */{file.size}"})
                return
            headers = headers | {"Content-Range": f"bytes {start}-{end}/{file.size}"}
        self.send_response(206 if asked else 200)
        for key, value in (headers | {"Content-Length": str(end - start + 1)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = self._cut(repository, file.path)
        with file.blob.open("rb") as content:
            content.seek(start)
            left = (end + 1 if stop is None else min(stop, end + 1)) - start
            while left > 0 and (part := content.read(min(CHUNK, left))):
                self.wfile.write(part)
                left -= len(part)
        if stop is not None and stop <= end:
            self.wfile.flush()
            self.close_connection = True

    def _cut(self, repository: HubRepository, path: str) -> int | None:
        after, times = repository.cuts.get(path, (0, 0))
        if times == 0:
            return None
        repository.cuts[path] = after, None if times is None else times - 1
        return after
