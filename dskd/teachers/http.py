"""One request to one server, with a persistent connection: its answer, or one line that says why there is none."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from dskd.errors import InputError
from dskd.teachers.addresses import ApiKey

_CONNECT = 10.0  # seconds for a connection, and for small questions
# Below the 5 seconds after which vLLM's server closes an idle connection: one that it closes while a request is sent looks like a fault.
_KEPT = 3.0
_BUSY = {408, 425, 429}  # besides 5xx, what another address or a later try may answer
_NEVER = {501, 505}  # of 5xx, what no later try will answer
# No proxy of the environment sees what stays on this machine: None is the usual connection.
_NO_PROXY = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
_MODELS = "/v1/models"
_NO_SERVER = "fix: give the address of a vLLM server"
_TOO_LONG = ("context", "too long", "maximum", "max_model_len", "exceed")


class Away(Exception):
    """An address gives no usable answer now; another address may, or this one later.

    Args:
        reason: What happened, for a message.
        lost: Whether the server may have ended, so that another may answer next.
    """

    def __init__(self, reason: str, *, lost: bool = True) -> None:
        super().__init__(reason)
        self.lost = lost


@dataclass(frozen=True)
class Reply:
    """A whole answer with status 2xx. `headers` by their names in small letters."""

    address: str
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The content as JSON. Raises Away where it is none, as half an answer is."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            raise Away("answers with something else than JSON") from None


class Connections:
    """Connections to any addresses, used on the event loop that they are closed on.

    Args:
        key: The servers' API key.
        timeout: Seconds for one request.

    Attributes:
        bytes_sent, bytes_received: Of requests that were answered, their headers included.

    Raises:
        InputError: For a proxy in the environment that cannot be used.
    """

    def __init__(self, key: ApiKey, timeout: float) -> None:
        self.bytes_sent = self.bytes_received = 0
        self._key, self._timeout = key, timeout
        try:
            self._client = httpx2.AsyncClient(
                headers={"Accept-Encoding": "identity", **key.headers},
                timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT), pool=None),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEPT),
                mounts=_NO_PROXY,
            )
        except (ImportError, ValueError, httpx2.InvalidURL):  # the library's own words may hold the proxy's password
            raise InputError(
                "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY: a proxy that cannot be used; fix: give one as http://host:port, or unset it"
            ) from None

    async def close(self) -> None:
        """Close them."""
        await self._client.aclose()

    async def send(self, address: str, method: str, path: str, content: bytes | None, *, quick: bool = False) -> Reply:
        """The answer of an address.

        Args:
            address, method, path, content: Of the request; `content` is JSON.
            quick: Whether an answer is expected within seconds.

        Raises:
            Away: Where there is none, or a status says that another may come later.
            InputError: For a status that only the user can change.
        """
        headers = {} if content is None else {"Content-Type": "application/json"}
        limit = min(self._timeout, _CONNECT) if quick else self._timeout
        try:
            async with asyncio.timeout(limit):
                response = await self._client.request(method, address + path, content=content, headers=headers)
        except (TimeoutError, httpx2.TimeoutException):
            # Slow is not gone: other answers of this address, which are under way, are good.
            raise Away(f"no answer within {limit:g} s", lost=False) from None
        except httpx2.RequestError as error:
            raise Away(self._key.line(_cause(error))) from None
        self.bytes_sent += _head(response.request.headers) + len(content or b"")
        self.bytes_received += _head(response.headers) + response.num_bytes_downloaded
        if not response.is_success:
            raise await self._refused(address, path, response)
        return Reply(address, dict(response.headers), response.content)

    async def _refused(self, address: str, path: str, response: httpx2.Response) -> Exception:
        """What to raise for an answer with another status than 2xx."""
        code, detail = response.status_code, self._key.line(_message(response))
        said = f"status {code} ({detail})" if detail else f"status {code}"
        if code in _BUSY or (code >= 500 and code not in _NEVER):
            return Away(said, lost=False)
        if code in {401, 403}:
            problem = "refuses the API key" if self._key else "wants an API key"
            return InputError(f"{address}: {problem}, {said}; fix: put the right one into {self._key.variable}")
        if code in {404, 405} | _NEVER:
            what = _NO_SERVER if path == _MODELS else await self._models(address)
            return InputError(f"{address}: answers {path} with {said}; {what}")
        if response.is_redirect:
            place = self._key.line(response.headers.get("Location", ""))
            return InputError(f"{address}: sends {path} on to {place}; fix: give the address that is meant")
        if code == 413 or any(word in detail.lower() for word in _TOO_LONG):
            fix = "start the server with a larger --max-model-len, or prepare the data with a smaller max_length"
            return InputError(f"{address}: cannot take the request, {said}; fix: {fix}")
        return InputError(
            f"{address}: refuses the request, {said}; fix: start it as `harness teacher serve-command` says"
        )

    async def _models(self, address: str) -> str:
        """Which models there are, and what to do where the one asked for is not, or does not do what it was asked for."""
        try:
            names = model_names(await self.send(address, "GET", _MODELS, None, quick=True))
        except (Away, InputError):
            return _NO_SERVER
        listed = ", ".join(map(self._key.line, names)) or "none"
        return f"its models: {listed}; fix: give one of them as model, and start it as `harness teacher serve-command` says"


def model_names(reply: Reply) -> list[str]:
    """The names in an answer to /v1/models. Raises Away where it is none."""
    found = reply.json()
    try:
        return [str(model["id"]) for model in found["data"]]
    except (KeyError, TypeError):
        raise Away("lists no models under /v1/models") from None


def _cause(error: BaseException) -> str:
    """What the system said, where a connection failed; the library's own words are "All connection attempts failed"."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLError):  # its number is none of the system's
            return f"no secure connection ({(inner.reason or str(inner)).replace('_', ' ').lower()})"
        if isinstance(inner, OSError) and inner.errno:
            return (
                os.strerror(inner.errno) if inner.errno > 0 else str(inner.strerror)
            )  # below 0 are those of getaddrinfo
        inner = inner.exceptions[0] if isinstance(inner, BaseExceptionGroup) else inner.__cause__ or inner.__context__
    return str(error).rstrip(".") or type(error).__name__


def _head(headers: httpx2.Headers) -> int:
    """Bytes of the headers of a request or an answer, about."""
    return sum(len(name) + len(value) + 4 for name, value in headers.raw) + 32


def _message(response: httpx2.Response) -> str:
    """What an answer says of an error: `error.message` as OpenAI's servers have it, `detail` as others, or all of it."""
    try:
        said = response.json()
        error = said.get("error", said)
        found = error if isinstance(error, str) else error.get("message") or error.get("detail")
    except (ValueError, AttributeError, RecursionError):
        found = None
    return str(found or response.text)
