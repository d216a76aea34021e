"""Where the hub's cache has the files of a commit. Nothing is asked, downloaded or made."""

from __future__ import annotations

import re
from pathlib import Path

from dskd.hub.names import HubName, Kind

_SNAPSHOT = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})")


def snapshot_folder(repo: str, commit: str, kind: Kind = "model") -> Path:
    """Where the hub's cache has, or would have, the files of a commit on this machine.

    Args:
        repo: `org/name`.
        commit: its 40 hexadecimal digits.
        kind: of the repository.

    Returns:
        A folder that may not exist.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind) / "snapshots" / commit


def snapshot_of(folder: Path) -> HubName | None:
    """The model and the commit whose folder in the hub's cache this is; None for any other folder."""
    found = _SNAPSHOT.fullmatch("/".join(folder.absolute().parts[-3:]))
    return None if found is None else HubName(f"{found['owner']}/{found['name']}", found["commit"])
