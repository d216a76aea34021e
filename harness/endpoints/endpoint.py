"""Where a server is and how it is reached. Its API key comes from the environment, and leaves the client in a header only."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dskd.errors import InputError
from dskd.teachers.addresses import checked_variable


@dataclass(frozen=True)
class Words:
    """What errors call an endpoint and its settings: as the user gave them.

    Attributes:
        who: What the server is to the user.
        command: What needs the package `openai`.
        extra: The extra of the package that brings it.
        address, model, timeout, parallel: The options.
        left_out: How a parameter is left out of requests.
        length: The option for the length of responses, where a server may refuse it as too much.
    """

    who: str
    command: str
    extra: str
    address: str
    model: str
    timeout: str
    parallel: str
    left_out: str
    length: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """A server. `base_url` ends with /v1 for most; `timeout` is in seconds. InputError for what is no address."""

    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 300.0
    retries: int = 5
    words: Words = field(kw_only=True)

    def __post_init__(self) -> None:
        checked_variable(self.api_key_env)
        option = self.words.address
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, a bracket that is not closed
            usable = False
        if not usable:
            raise InputError(f"{option}: is no address; fix: as http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise InputError(f"{option} {self.shown}: holds a password; fix: put it into {self.api_key_env}")

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def key(self) -> str:
        """The API key, empty without one. InputError for one that no header can hold."""
        key = os.environ.get(self.api_key_env, "").strip()
        if not key.isascii() or not (key == "" or key.isprintable()) or " " in key:
            raise InputError(f"{self.api_key_env}: is no API key (spaces or unusual characters); fix: set it anew")
        return key
