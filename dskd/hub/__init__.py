"""Models and data sets by name on the Hugging Face hub: `org/name[@revision]` to a commit, and a commit to a folder.

Everything goes through huggingface_hub: its cache, its token, `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_OFFLINE`.

    name = parse("Qwen/Qwen2.5-0.5B@main")          # None for a folder
    commit = resolve(name.repo, name.revision)      # of the hub, or of the cache without network
    folder = snapshot(name.repo, commit)            # downloads what is missing of the files that a model needs
    folder = model_folder("Qwen/Qwen2.5-0.5B")      # all of that, for a folder too
"""

from __future__ import annotations

from dskd.hub.cache import snapshot_folder, snapshot_of
from dskd.hub.commits import newest, pin, resolve
from dskd.hub.download import base_on_hub, model_folder, settings, snapshot, tokenizer_folder
from dskd.hub.errors import HubUnreachable
from dskd.hub.names import HubName, parse
from dskd.hub.remote_code import code_arguments, refuse_remote_code, trusts_code

__all__ = [
    "HubName",
    "HubUnreachable",
    "base_on_hub",
    "code_arguments",
    "model_folder",
    "newest",
    "parse",
    "pin",
    "refuse_remote_code",
    "resolve",
    "settings",
    "snapshot",
    "snapshot_folder",
    "snapshot_of",
    "tokenizer_folder",
    "trusts_code",
]
