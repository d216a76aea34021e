"""A folder in which a head can be read: of a model on the hub, its settings and the shard with the head are downloaded, and no more."""

from __future__ import annotations

import glob
import logging
from pathlib import Path

from dskd import hub
from dskd.errors import InputError
from dskd.modeling.head_alone import find_head
from dskd.modeling.weight_files import ADAPTER_CONFIG, INDEX

log = logging.getLogger(__name__)


def head_folder(reference: str | Path, *, embedding: bool = False, where: str = "") -> Path:
    """The folder of a model's configuration, tokenizer and output head, for `read_head`.

    Args:
        reference: The path of a folder, or `org/name[@revision]` on the hub.
        embedding: Whether the input embedding is needed, too, which may stand in another shard.
        where: What stands before errors, as `models.teacher.head`.

    Returns:
        A folder as it is, and of a name the snapshot in the hub's cache, to which `hub.snapshot` adds the rest when that is needed.
        Where it is an adapter's, its weights and the head of its base model are there.

    Raises:
        InputError: For a name that cannot be had, and a model without a head that could be read alone. A path that does not exist is
            returned: who reads it says so.
    """
    try:
        name = hub.parse(str(reference))
        folder = Path(reference) if name is None else _on_hub(name, embedding)
        base = hub.base_on_hub(folder)
        if base is not None:
            _on_hub(base, embedding)
        return folder
    except InputError as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from error


def _on_hub(name: hub.HubName, embedding: bool) -> Path:
    commit = hub.resolve(name.repo, name.revision)
    log.info("%s is commit %s", name, commit)
    folder = hub.settings(name.repo, commit)
    if (folder / ADAPTER_CONFIG).is_file() or not (folder / f"model.safetensors{INDEX}").is_file():
        return hub.snapshot(name.repo, commit)  # one file of weights
    files = [file.relative_to(folder).as_posix() for file in find_head(folder, embedding=embedding).files]
    return hub.snapshot(name.repo, commit, files=[glob.escape(file) for file in files])
