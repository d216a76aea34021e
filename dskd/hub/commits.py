"""Revisions to commits. A process may be told which commits to use, and tells its children by the environment."""

from __future__ import annotations

import json
import os

from dskd.hub.errors import hub_errors
from dskd.hub.names import MAIN, HubName, Kind, is_commit

# `{"model:org/name@main": "<commit>"}`: what was resolved when a run was planned, for its jobs and their processes.
PINNED = "DSKD_HUB_COMMITS"
_SECONDS = 5.0  # that a look at the hub may take which nobody waits for


def resolve(repo: str, revision: str = MAIN, kind: Kind = "model") -> str:
    """The commit that a revision stands for: the one that is pinned, else the hub's, else (no network) that of the cache.

    Args:
        repo: `org/name`.
        revision: a branch, a tag or a commit.
        kind: of the repository.

    Returns:
        The commit's 40 hexadecimal digits.

    Raises:
        HubUnreachable: without network, where the cache does not know the revision.
        InputError: for a repository or a revision that is not there, and one that may not be read.
    """
    if is_commit(revision):
        return revision
    name = HubName(repo, revision)
    if pinned := _pinned().get(f"{kind}:{name}"):
        return pinned
    from huggingface_hub import HfApi, constants

    with hub_errors(str(name), kind):
        offline = constants.HF_HUB_OFFLINE
        found = HfApi().resolve_revision(repo, revision=revision, repo_type=kind, local_files_only=offline)
    return found.resolved


def pin(repo: str, revision: str, commit: str, kind: Kind = "model") -> None:
    """Let this process, and all that it starts, use this commit for a revision."""
    os.environ[PINNED] = json.dumps(_pinned() | {f"{kind}:{HubName(repo, revision)}": commit})


def newest(repo: str, revision: str = MAIN, kind: Kind = "model") -> str:
    """The commit that a revision has on the hub now, by one request, whatever is pinned or in the cache.

    Args:
        repo: `org/name`.
        revision: a branch, a tag or a commit.
        kind: of the repository.

    Returns:
        The commit.

    Raises:
        HubUnreachable: where there is no answer within seconds, and offline.
        InputError: for a repository or a revision that is not there, and one that may not be read.
    """
    from huggingface_hub import HfApi

    with hub_errors(str(HubName(repo, revision)), kind):
        sha = HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=_SECONDS).sha
    assert sha is not None, "the hub says which commit it describes"
    return sha


def _pinned() -> dict[str, str]:
    return json.loads(os.environ.get(PINNED) or "{}")
