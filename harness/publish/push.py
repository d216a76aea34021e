"""A staged student to the hub: one private repository and one commit, unless told otherwise. Each failure is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dskd.errors import InputError

# Weights of an earlier push that are not among the new files would be loaded beside them.
_REPLACED = ["*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json"]


def check_name(repository: str) -> None:
    """InputError for what is no name of a repository."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--to {repository}: is no name of a model on the hub ({reason}); fix: ORG/NAME") from None
    if repository.count("/") != 1:
        raise InputError(f"--to {repository}: is no name of a model on the hub; fix: write ORG/NAME, or USER/NAME")


def push(folder: Path, repository: str, *, public: bool, overwrite: bool) -> str:
    """Upload a staged folder.

    Args:
        folder: Of `harness.publish.files.stage`.
        repository: `org/name`.
        public: Whether everybody may see it.
        overwrite: Make a commit in a repository that holds something already.

    Returns:
        The address of the model's page.

    Raises:
        InputError: Not logged in, no permission, no network, a repository that holds something, or that others can see.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _one_line(repository):
        _require_token(api)
        held = _held(api, repository, public=public, overwrite=overwrite)
        if held is None:
            api.create_repo(repository, private=not public)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Upload a student with its model card",
            delete_patterns=_REPLACED if held else None,
        )
    return f"{api.endpoint}/{repository}"


def _require_token(api: Any) -> None:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise InputError("--to: HF_HUB_OFFLINE is set, so nothing can be pushed; fix: unset it")
    if not get_token():
        raise InputError(
            "--to: not logged in to the hub; fix: hf auth login, or set HF_TOKEN to a token that may write"
        )
    api.whoami()


def _held(api: Any, repository: str, *, public: bool, overwrite: bool) -> set[str] | None:
    """The files that a repository holds besides what the hub put there; None where there is no such repository."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        there = api.model_info(repository)
    except RepositoryNotFoundError:
        return None
    held = {each.rfilename for each in there.siblings or ()} - {".gitattributes"}
    if held and not overwrite:
        raise InputError(
            f"--to {repository}: exists and holds {len(held)} files; fix: --overwrite to replace the model there, "
            "or another name"
        )
    if not there.private and not public:
        raise InputError(
            f"--to {repository}: exists and is public, so everybody would see it; fix: --public if that is meant, "
            "or another name"
        )
    return held


@contextmanager
def _one_line(repository: str) -> Iterator[None]:
    """Turn what the hub and the network answer into InputError."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reasons = {
            401: "the hub does not know this token; fix: hf auth login with a token that may write",
            403: "no permission to write there; fix: use a token of a member with write access, or a name of your own",
            409: "exists already; fix: --overwrite, or another name",
            413: "the hub has no room for it; fix: free some, or ask for more",
        }
        said = " ".join((error.server_message or str(error)).split())[:200]
        reason = reasons.get(status, f"the hub answers {status} ({said}); fix: try again later")
        raise InputError(f"--to {repository}: {reason}") from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"--to {repository}: the hub cannot be reached ({said}); fix: check the network and HF_ENDPOINT"
        ) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        said = " ".join(str(error).split())[:300]
        raise InputError(f"--to {repository}: the hub refuses it ({said}); fix: correct README.md") from error
