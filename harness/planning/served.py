"""The teachers behind an address that a matrix or a command line names, as inputs of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from dskd.errors import InputError
from dskd.text import TeacherText
from harness.config.served import ServedSource
from harness.runs.hub_lock import HubLock
from harness.runs.identity import FileHashes
from harness.steps.base import ModelInput
from harness.steps.data import Examples
from harness.steps.endpoint_responses import EndpointResponses, TeacherEndpoint
from harness.steps.served_model import ServedModel, head_folder
from harness.steps.tokenizers import changed_tokenizer, tokenizer_in_folder

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
        local_copy=source.local_copy,
        reach=source.model_dump(include=_REACH),
    )


def endpoint_responses(
    examples: Examples,
    limit: int | None,
    teacher: ModelInput,
    source: ServedSource,
    asked: TeacherText,
    seed: int,
    where: str,
) -> EndpointResponses:
    """The responses of a teacher behind an address to a training set.

    Args:
        examples, limit: the training set, and how much of it.
        teacher: the teacher.
        source: what the matrix says of it.
        asked: how it is asked; the number of its samples goes before that of `source`.
        seed: of the requests.
        where: what errors begin with.

    Raises:
        InputError: for a teacher that gives hidden states alone, or has no name on its server.
    """
    addresses = source.chat or source.completions
    if not addresses:
        raise InputError(
            f"{where}: has no address that writes text, and a method learns from its responses; fix: give `chat` or `completions`"
        )
    if source.model is None:
        raise InputError(
            f"{where}.model: is missing, and a request for text names it; fix: give the model's name on the server"
        )
    api: Literal["chat", "completions"] = "chat" if source.chat else "completions"
    endpoint = TeacherEndpoint(
        name=teacher.name,
        model=source.model,
        api=api,
        addresses=tuple(f"{address}/v1" for address in addresses),
        tokenizer=getattr(teacher, "tokenizer", None),
        template=source.template,
        api_key_env=source.api_key_env,
        timeout=source.timeout,
        parallel=source.in_flight * len(addresses),
    )
    return EndpointResponses(
        title=f"responses of {teacher.name} to {examples.name}",
        examples=examples,
        limit=limit,
        teacher=endpoint,
        samples=asked.samples if "samples" in asked.model_fields_set else source.samples,
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.sampled_at,
        parameters=source.parameters,
        seed=seed,
        price=source.price,
    )


def gives_text_alone(model: ModelInput) -> bool:
    """Whether a teacher is behind an address and nothing is known of its tokens."""
    return isinstance(model, ServedModel) and model.tokenizer is None
