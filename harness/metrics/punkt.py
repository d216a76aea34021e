"""nltk's data for English sentences (`punkt_tab`), found without the network and checked before anything is generated.

IFEval counts sentences with it. Importing lm-eval's checks asks the network for it where nltk does not find it, and other data would
count other sentences; so it is looked for here first, and its files must be those that the task was made with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from dskd.errors import InputError

_ENGLISH = "tokenizers/punkt_tab/english/"
_FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")
SHA256 = "87b7437941fb4df13edcd8cad64ff370f548f8c3e9503a795e05bef42bf34bdc"
_FIX = "run `python -m nltk.downloader punkt_tab`, or `pip install --no-deps llama-index-core`, which has it"


def require_punkt() -> None:
    """Let nltk find its data for English sentences: on its own paths, in $HARNESS_DATA/nltk_data, or in the package llama-index-core.

    InputError where it is nowhere, or where what comes first is other data.
    """
    import nltk

    if (folder := _folder()) is None:
        raise InputError(f"nltk: its data punkt_tab is not here; fix: {_FIX}")
    if folder not in nltk.data.path:
        nltk.data.path.append(folder)  # nltk opens no file outside of its paths
    english = nltk.data.find(_ENGLISH, [folder])
    digest = hashlib.sha256()
    for name in _FILES:
        with english.join(name).open() as file:
            digest.update(file.read())
    if digest.hexdigest() != SHA256:
        raise InputError(
            f"{english}: its files have the sha256 {digest.hexdigest()}, expected {SHA256}; fix: move them away, and {_FIX}"
        )


def _folder() -> str | None:
    import nltk

    for folder in (*nltk.data.path, *map(str, _others())):
        try:
            nltk.data.find(_ENGLISH, [folder])
        except LookupError:
            continue
        return folder
    return None


def _others() -> Iterator[Path]:
    if folder := os.environ.get("HARNESS_DATA"):
        yield Path(folder) / "nltk_data"
    spec = find_spec("llama_index")
    for place in spec.submodule_search_locations or () if spec else ():
        yield Path(place) / "core" / "_static" / "nltk_cache"
