"""What goes wrong with the hub, in one line each: what was asked for, why it did not come, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dskd.errors import InputError, is_disk_full
from dskd.hub.names import Kind

_NOUN = {"model": "model", "dataset": "data set"}
# Classes of the HTTP library's errors: huggingface_hub has changed the library, and the names stayed.
_BROKEN_OFF = {"RemoteProtocolError", "ReadError"}
_NETWORK = {"TransportError", "OfflineModeIsEnabled", "ConnectionError", "Timeout"}


class HubUnreachable(InputError):
    """What was asked for is not in the hub's cache, and the hub cannot be asked: offline, or no network."""


@contextmanager
def hub_errors(asked: str, kind: Kind = "model") -> Iterator[None]:
    """Turn what huggingface_hub raises into one line.

    Args:
        asked: what was asked for, `org/name` or `org/name@revision`, with which the line begins.
        kind: of the repository.

    Raises:
        HubUnreachable: where there is no network, or none is to be used, and the cache does not have it.
        InputError: for what is not there, may not be read, does not fit the disk or broke off.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        line = _explained(error, asked, kind)
        if line is None:
            raise
        raise (HubUnreachable if _is_network(error) else InputError)(line) from error


def _explained(error: Exception, asked: str, kind: Kind) -> str | None:
    """The line about an error; None where it is none of the hub's."""
    from huggingface_hub import constants, errors

    page = constants.ENDPOINT + ("/datasets/" if kind == "dataset" else "/") + asked.partition("@")[0]
    noun = _NOUN[kind]
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{asked}: this {noun} is gated: its owner lets only those read it who asked for it; fix: ask on {page}, then log "
            "in with `hf auth login` (or set HF_TOKEN)"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{asked}: no {noun} of this name on {constants.ENDPOINT}, or a private one; fix: correct the name (or the path of a "
            "folder), or log in with `hf auth login` if it is private"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{asked}: this {noun} has no such revision; fix: name a branch, a tag or a commit that {page} has"
    if isinstance(error, errors.HFValidationError):
        return f"{asked}: is no name on the hub ({_reason(error)}); fix: write org/name, or give the path of a folder"
    if is_disk_full(error):
        return (
            f"{asked}: the disk is full ({constants.HF_HUB_CACHE}); fix: free some space, or set HF_HOME to a folder on another "
            "disk, and run the same command again"
        )
    reason = _reason(error)
    if _broke_off(error):
        return f"{asked}: its download broke off ({reason}); fix: run the same command again, what has come stays"
    if _is_network(error):
        if constants.HF_HUB_OFFLINE:
            return (
                f"{asked}: is not in the hub's cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set; fix: unset it, or "
                f"download it first where there is a network (hf download {_repo_type(kind)}{asked.partition('@')[0]})"
            )
        return (
            f"{asked}: is not in the hub's cache ({constants.HF_HUB_CACHE}), and {constants.ENDPOINT} cannot be reached "
            f"({reason}); fix: run it again with a network, or give the path of a folder"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return f"{asked}: {constants.ENDPOINT} refused ({reason}); fix: run the same command again later, or log in with `hf auth login`"
    return None


def _repo_type(kind: Kind) -> str:
    return "--repo-type dataset " if kind == "dataset" else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _named(error: BaseException, names: set[str]) -> bool:
    return any(cls.__name__ in names for cls in type(error).__mro__)


def _broke_off(error: Exception) -> bool:
    """Whether a download began and did not end."""
    return "Consistency check failed" in str(error) or any(_named(each, _BROKEN_OFF) for each in _chain(error))


def _is_network(error: Exception) -> bool:
    from huggingface_hub import errors

    missing = (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, errors.IncompleteSnapshotError)
    if _broke_off(error) or is_disk_full(error):
        return False
    return isinstance(error, missing) or any(_named(each, _NETWORK) for each in _chain(error))


def _reason(error: BaseException) -> str:
    """The first line of the deepest cause that says something."""
    texts = [line for each in _chain(error) for line in str(each).strip().splitlines()[:1] if line]
    return texts[-1] if texts else type(error).__name__
