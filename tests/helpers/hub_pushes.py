"""Pushing to the imitated hub (hub_server.py): new repositories, large files, commits."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from helpers.hub_repositories import LARGE, LARGE_BYTES, HubFile, HubRepository

if TYPE_CHECKING:
    from helpers.hub_server import HubServer


def create_repository(hub: HubServer, user: str, asked: dict[str, Any], token: str) -> tuple[int, dict[str, Any]]:
    """Make a repository with an empty first commit.

    Args:
        hub: the hub.
        user: who asks; the owner without an organisation.
        asked: the body of the request: `name`, `organization`, `type`, `visibility` or `private`.
        token: of the user, who may read what is private.

    Returns:
        Status and body of the answer: 409 for one that exists.
    """
    kind = asked.get("type") or "model"
    name = f"{asked.get('organization') or user}/{asked['name']}"
    place = f"{hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if name.partition("/")[0] in hub.closed:
        return 403, {"error": f"You don't have the rights to create a {kind} under this namespace"}
    if (kind, name) in hub.repositories:
        return 409, {"error": f"You already created this {kind} repo: {name}", "url": place}
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    repository = HubRepository(kind, name, private=private, readers={token})
    repository.commit({".gitattributes": hub.storage.put(".gitattributes", b"")}, "main", "initial commit")
    hub.repositories[kind, name] = repository
    return 200, {"url": place, "name": name, "id": name, "private": private}


def upload_modes(repository: HubRepository, revision: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Which of the announced files go to large file storage, and what is known of them already."""
    known = repository.commits[repository.resolve(revision) or ""] if repository.resolve(revision) else {}
    answers = []
    for file in asked["files"]:
        large = file["path"].endswith(LARGE) or file["size"] > LARGE_BYTES
        answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        here = known.get(file["path"])
        answers.append(answer | ({"oid": here.etag} if here else {}))
    return {"files": answers}


def large_file_batch(hub: HubServer, asked: dict[str, Any]) -> dict[str, Any]:
    """Where to send each large file; no action for one whose bytes are here."""
    objects = []
    for each in asked["objects"]:
        answer = {"oid": each["oid"], "size": each["size"], "authenticated": True}
        if hub.storage.blob(each["oid"]) is None:
            answer["actions"] = {
                "upload": {"href": f"{hub.url}/upload/{each['oid']}", "header": {}},
                "verify": {"href": f"{hub.url}/verify", "header": {}},
            }
        objects.append(answer)
    return {"transfer": "basic", "objects": objects}


def commit_files(hub: HubServer, repository: HubRepository, revision: str, lines: list[dict[str, Any]]) -> str | None:
    """Make the commit that the lines of a request describe.

    Returns:
        Its name; None where its parent is no longer the branch's commit, or a large file was never sent.
    """
    header = next(line["value"] for line in lines if line["key"] == "header")
    head = repository.resolve(revision)
    if header.get("parentCommit") and head and not head.startswith(header["parentCommit"]):
        return None
    files: dict[str, HubFile] = dict(repository.commits[head]) if head else {}
    for line in lines:
        key, value = line["key"], line["value"]
        if key == "file":
            files[value["path"]] = hub.storage.put(value["path"], base64.b64decode(value["content"]))
        elif key == "lfsFile":
            blob = hub.storage.blob(value["oid"])
            if blob is None:
                return None
            files[value["path"]] = hub.storage.put(value["path"], blob.read_bytes())
        elif key == "deletedFile":
            files.pop(value["path"], None)
        elif key == "deletedFolder":
            files = {path: file for path, file in files.items() if not path.startswith(value["path"].rstrip("/") + "/")}
    return repository.commit(files, revision, header.get("summary", ""))
