"""Where a server is, and the key for it: checked before anything is sent. Nothing here imports torch or an HTTP client."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from dskd.errors import InputError

_DETAIL = 300  # characters of a server's message that are shown
_EXAMPLE = "http://127.0.0.1:8000"


def is_address(address: str) -> bool:
    """Whether a text is an address of a server, with a scheme and a host."""
    try:
        parts = urlsplit(address)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def without_password(address: str) -> str:
    """An address as it may be shown: without user, password and what comes after its path."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def checked_address(address: str) -> str:
    """The address of a server without a slash at its end, such as http://127.0.0.1:8000. InputError, without a password in it, if it is none."""
    if not is_address(address):
        shown = "" if "@" in address else f" {address!r}"
        raise InputError(f"addresses:{shown} is no address; fix: give it as {_EXAMPLE}")
    parts, shown = urlsplit(address), without_password(address).rstrip("/")
    if "@" in parts.netloc:
        raise InputError(
            f"addresses: {shown} holds a password; fix: leave it out, and put the server's key into the environment"
        )
    if parts.query or parts.fragment:
        raise InputError(f"addresses: {shown} has something after its path; fix: give it as {_EXAMPLE}")
    if parts.path.rstrip("/").endswith("/v1"):
        raise InputError(f"addresses: {shown} ends with /v1; fix: {shown.removesuffix('/v1')}")
    return shown


def checked_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Several addresses, each once."""
    checked = tuple(map(checked_address, addresses))
    if twice := {address for address in checked if checked.count(address) > 1}:
        raise InputError(f"addresses: {min(twice)} is there twice; fix: give each once")
    return checked


def checked_variable(name: Any) -> str:
    """The name of an environment variable. InputError, without what was given, if it is none: it may be the key itself."""
    if not (isinstance(name, str) and name.isascii() and name.isidentifier()):
        raise InputError("api_key_env: is no name of an environment variable; fix: give its name, and not the key")
    return name


@dataclass(frozen=True)
class ApiKey:
    """A key from the environment, "" where none is set. It leaves the process in a header only.

    Attributes:
        variable: The name of the environment variable.
    """

    variable: str
    _value: str = field(repr=False)

    @classmethod
    def from_environment(cls, variable: str) -> ApiKey:
        """The key in a variable. InputError where that can be no key."""
        key = os.environ.get(variable, "").strip()
        if not key.isascii() or not (key == "" or key.isprintable()) or " " in key:
            raise InputError(f"{variable}: is no API key (spaces or unusual characters); fix: set it anew")
        return cls(variable, key)

    @property
    def value(self) -> str:
        """The key itself, for a client that puts it into a header."""
        return self._value

    @property
    def headers(self) -> dict[str, str]:
        """What a request says with it."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def __bool__(self) -> bool:
        return bool(self._value)

    def hidden_in(self, text: str) -> str:
        """A text with the key taken out."""
        return text.replace(self._value, "[API key]") if self._value else text

    def line(self, said: Any) -> str:
        """What a server or a library said, in one line of printable characters without the key."""
        text = self.hidden_in(str(said))
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= _DETAIL else f"{line[:_DETAIL]}…"
