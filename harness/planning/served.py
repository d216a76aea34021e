"""The teachers behind an address that a matrix or a command line names, as inputs of steps."""

from __future__ import annotations

from collections.abc import Callable

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Template
from harness.config.served import ServedSource
from harness.runs.hub_lock import HubLock
from harness.runs.identity import FileHashes
from harness.steps.base import ModelInput, TokenizerInput
from harness.steps.served_model import ServedModel, head_folder
from harness.steps.tokenizers import ChangedTokenizer, TokenizerChanges, TokenizerCopy, tokenizer_in_folder

_REACH = {"api_key_env", "timeout", "patience", "in_flight", "request_tokens"}


def served_model(
    name: str, source: ServedSource, hashes: FileHashes, lock: HubLock, where: Callable[[str], str]
) -> ServedModel:
    """A teacher that a server runs; nothing is asked of the server yet.

    Args:
        name: what it is called.
        source: what is said of it.
        hashes: of files.
        lock: the commits of what comes from the hub.
        where: what an error about one of the source's keys begins with.

    Raises:
        InputError: for a head or a tokenizer that is not there.
    """
    head = tokenizer = None
    key = "head"
    try:
        if source.head_place is not None:
            head = head_folder(source.head_place, hashes, lock)
        key = key if source.tokenizer is None else "tokenizer"
        if source.tokenizer_place is not None:
            tokenizer = tokenizer_in_folder(source.tokenizer_place, hashes, lock)
    except InputError as error:
        raise InputError(f"{where(key)}: {error}") from None
    addresses = {"served": source.served, "completions": source.completions, "chat": source.chat}
    return ServedModel(
        name=name,
        addresses={kind: given for kind, given in addresses.items() if given},
        model=source.model,
        head=head,
        tokenizer=None
        if tokenizer is None
        else changed_tokenizer(name, tokenizer, source.template, add_bos_token=source.add_bos_token),
        dtype=source.dtype,
        reach=source.model_dump(include=_REACH),
    )


def gives_text_alone(model: ModelInput) -> bool:
    """Whether a teacher is behind an address and nothing is known of its tokens."""
    return isinstance(model, ServedModel) and model.tokenizer is None


def changed_tokenizer(
    name: str, origin: TokenizerInput, template: Template | None, *, add_bos_token: bool = False
) -> TokenizerInput:
    """The tokenizer of a model as a matrix changes it, made by a step of its own; or as it is, where nothing is changed."""
    changes = TokenizerChanges(template=template, add_bos_token=add_bos_token or None)
    if not changes:
        return origin
    maker = TokenizerCopy(title=f"tokenizer of {name}", origin=origin, changes=changes)
    return ChangedTokenizer(origin=origin, changes=changes, maker=maker)
