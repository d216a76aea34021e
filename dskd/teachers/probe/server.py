"""What a server says of itself and of its tokenizer, before it is asked for the teacher's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dskd.errors import InputError
from dskd.teachers.http import Away
from dskd.teachers.probe.report import ProbeCheck
from dskd.teachers.probe.texts import TEXTS, ids_of, vocabulary_texts
from dskd.teachers.servers import TeacherServers
from dskd.tokenization.vocabulary import Vocabulary


@dataclass(frozen=True)
class ServerFacts:
    """What is known of the server at an address.

    Attributes:
        version: What it says at /version.
        length: The most tokens of a text (`max_model_len` as vLLM lists it).
    """

    version: str | None
    length: int | None


def facts(
    servers: TeacherServers, address: str, model: str, longest: int | None
) -> tuple[ServerFacts, list[ProbeCheck]]:
    """Whether the model is there by its name, and takes texts of `longest` tokens. Raises Away where the address does not answer."""
    reply = servers.ask(address, "/v1/models")
    try:
        listed = {str(entry["id"]): entry for entry in reply.json()["data"]}
    except (KeyError, TypeError):
        raise Away("lists no models under /v1/models") from None
    found = ServerFacts(_version(servers, address), None)
    names = ", ".join(map(servers.line, listed)) or "none"
    if model not in listed:
        fix = "give one of its models as model, or the address of a server that has it"
        return found, [_check("name", address, f"has no model {model!r}, only {names}", fix)]
    checks = [_check("name", address, names)]
    length = listed[model].get("max_model_len")
    if not isinstance(length, int):
        return found, [*checks, _not_checked("length", address, "the server does not list max_model_len")]
    if longest is None:
        checks.append(
            _not_checked("length", address, f"texts of at most {length:,} tokens; the data is not known here")
        )
    elif longest > length:
        checks.append(
            _check(
                "length",
                address,
                f"takes texts of at most {length:,} tokens, and the longest example has {longest:,}",
                f"start the server with --max-model-len {longest}, or prepare the data with max_length {length}",
            )
        )
    else:
        checks.append(
            _check("length", address, f"texts of at most {length:,} tokens; the longest example has {longest:,}")
        )
    return ServerFacts(found.version, length), checks


def vocabulary(servers: TeacherServers, address: str, model: str, tokenizer: Any, tokens: Vocabulary) -> ProbeCheck:
    """Whether /tokenize gives the ids of the teacher's tokenizer, on texts that tell tokenizers apart. Raises Away."""
    texts = [*TEXTS, *vocabulary_texts(tokens)]
    differ: list[tuple[str, list[int], list[int]]] = []
    for text in texts:
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        try:
            given = servers.ask(address, "/tokenize", body).json()
        except InputError as error:  # an endpoint that is no vLLM's
            return _not_checked("vocabulary", address, f"no answer from /tokenize ({servers.line(error)})")
        ids = given.get("tokens") if isinstance(given, dict) else None
        if not isinstance(ids, list):
            return _not_checked("vocabulary", address, "/tokenize answers without tokens")
        if ids != (ours := ids_of(tokenizer, text)):
            differ.append((text, ids, ours))
    if not differ:
        return _check("vocabulary", address, f"the same ids for {len(texts)} texts")
    text, ids, ours = differ[0]
    return _check(
        "vocabulary",
        address,
        f"the server's tokenizer cuts {len(differ)} of {len(texts)} texts otherwise than the teacher's: {text[:24]!r} into "
        f"{_shown(ids)} and not {_shown(ours)}",
        "give the tokenizer of the model that is served (tokenizer), or the address of the teacher's server",
    )


def _version(servers: TeacherServers, address: str) -> str | None:
    try:
        said = servers.ask(address, "/version").json()
    except InputError:  # only vLLM has it
        return None
    version = said.get("version") if isinstance(said, dict) else None
    return None if version is None else servers.line(version)


def _shown(ids: list[int]) -> str:
    return str(ids[:6])[:-1] + (", …]" if len(ids) > 6 else "]")


def _check(name: str, address: str, found: str, fix: str = "") -> ProbeCheck:
    return ProbeCheck(name=name, result="refused" if fix else "passed", found=found, fix=fix, address=address)


def _not_checked(name: str, address: str, why: str) -> ProbeCheck:
    return ProbeCheck(name=name, result="not checked", found=why, address=address)
