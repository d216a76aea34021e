"""The judge's endpoint: one request at a time to any server that speaks OpenAI's chat completions.

Retries, their waiting times and Retry-After are those of the `openai` package. The API key comes from the environment, and leaves this
module in a header only: what a server says is searched for it before it is shown or stored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dskd.errors import InputError

_DETAIL = 300  # characters of a server's message that are shown
_SHORTEST_KEY = 8  # a shorter one is a placeholder, as "none" or "EMPTY", and a word of replies
_TOO_LONG = ("context", "too long", "maximum", "max_model_len", "exceed")


@dataclass(frozen=True)
class Endpoint:
    """Where the judge is, and how it is reached. `base_url` ends with /v1 for most servers; `timeout` is in seconds."""

    base_url: str
    api_key_env: str = "OPENAI_API_KEY"
    timeout: float = 300.0
    retries: int = 5

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, a bracket that is not closed
            usable = False
        if not usable:
            raise InputError("--base-url: is no address; fix: as http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise InputError(f"--base-url {self.shown}: holds a password; fix: put it into {self.api_key_env}")

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


@dataclass(frozen=True)
class Reply:
    """What the judge said. `reasoning` is there where the server takes it out of the text itself."""

    text: str
    reasoning: str | None
    finish_reason: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


class JudgeClient:
    """A client of one endpoint and one model; close it in the loop that used it. InputError where `openai` is not installed."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        try:
            import openai
        except ImportError:
            raise InputError(
                "harness judge: the package openai is not installed; fix: pip install 'dskd-harness[judge]'"
            ) from None
        self._openai, self._endpoint, self._model, self._key = openai, endpoint, model, endpoint.key()
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=self._key or "none",  # the package wants one, local servers do not
            timeout=endpoint.timeout,
            max_retries=endpoint.retries,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def ask(self, messages: Sequence[Mapping[str, str]], parameters: Mapping[str, Any], where: str) -> Reply:
        """Ask once. InputError, in one line that begins with the endpoint, where there is no reply after all retries.

        Args:
            parameters: Of the request's body, besides model and messages.
            where: Which prompt it is, for errors.
        """
        openai = self._openai
        asked: Any = list(messages)
        try:
            completion = await self._client.chat.completions.create(
                model=self._model, messages=asked, extra_body=dict(parameters)
            )
        except openai.APIStatusError as error:
            raise self._refused(error, where) from None
        except openai.APITimeoutError:
            problem = f"no reply within {self._endpoint.timeout:g} s"
            raise self._failed(problem, "a longer --timeout, or a lower --parallel", resumes=True) from None
        except openai.APIConnectionError as error:
            cause = self._shown(error.__cause__ or error)
            raise self._failed(
                f"cannot be reached ({cause})", "start the server, or give its --base-url", resumes=True
            ) from None
        except (openai.APIError, ValueError) as error:  # JSON that is none
            raise self._no_completion(self._shown(error)) from None
        return self._reply(completion)

    def _reply(self, completion: Any) -> Reply:
        """The parts of a completion, which the package has not checked."""
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        content = getattr(message, "content", None)
        if message is None or not isinstance(content, str | None):
            parsed = hasattr(completion, "model_dump_json")
            said = completion.model_dump_json(warnings=False) if parsed else str(completion)
            raise self._no_completion(self._line(said))
        # vLLM has `reasoning`, its older versions and others `reasoning_content`.
        reasoning = _text(getattr(message, "reasoning", None)) or _text(getattr(message, "reasoning_content", None))
        usage = getattr(completion, "usage", None)
        return Reply(
            self._without_key(content or ""),
            self._without_key(reasoning) if reasoning else None,
            _text(getattr(choice, "finish_reason", None)),
            _text(getattr(completion, "model", None)),
            _count(getattr(usage, "prompt_tokens", None)),
            _count(getattr(usage, "completion_tokens", None)),
        )

    def _no_completion(self, said: str) -> InputError:
        problem = f"answers with something else than a chat completion ({said})"
        return self._failed(problem, "give the --base-url of an OpenAI-compatible server, which mostly ends with /v1")

    def _refused(self, error: Any, where: str) -> InputError:
        code, detail = error.status_code, self._shown(error)
        if code in {401, 403}:
            return self._failed(
                f"refuses the API key ({detail})", f"put the right one into {self._endpoint.api_key_env}"
            )
        if code == 404:
            fix = (
                f"a --judge-model that {self._endpoint.shown}/models lists, and a --base-url that mostly ends with /v1"
            )
            return self._failed(f"has no model {self._model!r}, or no chat completions ({detail})", fix)
        if code == 429:
            return self._failed(f"asks to wait ({detail})", "wait, or lower --parallel", resumes=True)
        if code >= 500 or code in {408, 409}:
            return self._failed(f"fails with status {code} ({detail})", "look at the server's log", resumes=True)
        if code == 413 or any(word in detail.lower() for word in _TOO_LONG):
            fix = "start its server with a longer context, or choose another judge"
            return self._failed(f"cannot take {where} ({detail})", fix, resumes=True)
        fix = "--parameter NAME=null leaves out a parameter that the server does not know"
        return self._failed(f"refuses the request of {where} with status {code} ({detail})", fix)

    def _failed(self, problem: str, fix: str, *, resumes: bool = False) -> InputError:
        again = "; then the same command resumes" if resumes else ""
        return InputError(f"judge at {self._endpoint.shown}: {problem}; fix: {fix}{again}")

    def _shown(self, error: BaseException) -> str:
        """What an error says, in a line of printable characters without the key."""
        body = getattr(error, "body", None)
        text = body.get("message") if isinstance(body, dict) else None
        return self._line(str(text or error or type(error).__name__))

    def _line(self, text: str) -> str:
        text = self._without_key(text, always=True)
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= _DETAIL else f"{line[:_DETAIL]}…"

    def _without_key(self, text: str, *, always: bool = False) -> str:
        if not self._key or (len(self._key) < _SHORTEST_KEY and not always):
            return text
        return text.replace(self._key, "[API key]")


def _text(value: Any) -> str | None:
    """A text; None where the server says none, or something else."""
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    """A number of tokens; None where the server says none, or something else."""
    return value if isinstance(value, int) else None
