"""What of a matrix is never written into a file: passwords in addresses, and keys. A variable stands in its place.

A file that is read again asks for the variable, so a secret that is left out cannot be taken for an empty one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_SECRET = re.compile(r"(?i)(api_?key|(^|_)auth(_|$)|token(?!iz|s)|passw|secret|credential)")
# As they are called in the body of a request and in headers. `eos_token` and `max_tokens` are none.
_SECRET_KEY = re.compile(
    r"(?i)^((.*[_-])?(api[_-]?key|passwo?r?d|secret|(access|auth|hf)[_-]?token|authorization)|token)$"
)
_LOGIN = re.compile(r"(?<=://)[^/\s]+(?=@)")


def without_secrets(content: Any, variables: Mapping[str, str]) -> Any:
    """The content of a matrix with `${VARIABLE}` in place of each secret.

    Args:
        content: keys and values as YAML has them.
        variables: the values of those that the file names; one whose name says that it is secret is left where it was.
    """
    secret = {value: name for name, value in variables.items() if value and _SECRET.search(name)}
    return _cleaned(content, secret, "")


def command_without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line with `${NAME}` in place of each value of `NAME=VALUE` that is secret by its name, and without logins in addresses."""
    return [_argument(argument) for argument in arguments]


def _argument(argument: str) -> str:
    start = "--set=" if argument.startswith("--set=") else ""
    before, equals, value = argument.removeprefix(start).partition("=")
    name = before.rpartition(".")[2]
    if equals and value and (_SECRET.search(name) or _SECRET_KEY.match(name)):
        return f"{start}{before}=${{{re.sub('[^A-Z0-9]+', '_', name.upper())}}}"
    return _LOGIN.sub("${LOGIN}", argument)


def _cleaned(value: Any, secret: Mapping[str, str], key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _cleaned(item, secret, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item, secret, key) for item in value]
    if not isinstance(value, str):
        return value
    for text, name in secret.items():
        value = value.replace(text, f"${{{name}}}")
    if _SECRET_KEY.match(key) and not value.startswith("${"):
        return f"${{{re.sub('[^A-Z0-9]+', '_', key.upper())}}}"
    return _LOGIN.sub(lambda found: found[0] if found[0].startswith("${") else "${LOGIN}", value)
