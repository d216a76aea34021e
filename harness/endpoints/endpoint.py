"""Where a server is and how it is reached. Its API key comes from the environment, and leaves the client in a header only."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dskd.errors import InputError
from dskd.teachers.addresses import ApiKey, checked_variable, is_address, without_password


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
        if not is_address(self.base_url):
            raise InputError(f"{option}: is no address; fix: as http://127.0.0.1:8000/v1")
        if "@" in urlsplit(self.base_url).netloc:
            raise InputError(f"{option} {self.shown}: holds a password; fix: put it into {self.api_key_env}")

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        return without_password(self.base_url)

    def key(self) -> ApiKey:
        """The API key, empty without one. InputError for one that no header can hold."""
        return ApiKey.from_environment(self.api_key_env)
