"""One request at a time to any server that speaks OpenAI's chat completions or completions.

Retries, their waiting times and Retry-After are those of the `openai` package. What a server says is searched for the API key before it
is shown or stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dskd.errors import InputError
from harness.endpoints.endpoint import Endpoint
from harness.endpoints.replies import Api, Reply, read_reply

_SHORTEST_KEY = 8  # a shorter one is a placeholder, as "none" or "EMPTY", and a word of replies
_TOO_LONG = ("context", "too long", "maximum", "max_model_len", "exceed")
_FILTERED = ("content_filter", "content_policy_violation")  # how Azure and OpenAI call a prompt that their filter stops
_CALLED: dict[Api, str] = {"chat": "a chat completion", "completions": "a completion"}


class PromptRefused(InputError):
    """A prompt that a server does not answer although it answers others: `too_long` for it, or stopped by its content filter."""

    def __init__(self, message: str, reason: Literal["too_long", "filtered"]) -> None:
        super().__init__(message)
        self.reason = reason


class EndpointClient:
    """A client of one endpoint and one model; close it in the loop that used it. InputError where `openai` is not installed."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self._words = endpoint.words
        try:
            import openai
        except ImportError:
            raise InputError(
                f"{self._words.command}: the package openai is not installed; "
                f"fix: pip install 'dskd-harness[{self._words.extra}]'"
            ) from None
        self._openai, self._endpoint, self._model, self._key = openai, endpoint, model, endpoint.key()
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=self._key.value or "none",  # the package wants one, local servers do not
            timeout=endpoint.timeout,
            max_retries=endpoint.retries,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def chat(self, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], where: str) -> Reply:
        """Ask for a chat completion. InputError, in one line that begins with the endpoint, where there is no reply after all retries.

        Args:
            parameters: Of the request's body, besides model and messages.
            where: Which prompt it is, for errors.

        Raises:
            PromptRefused: For a prompt that this server does not answer although it answers others.
        """
        asked: Any = list(messages)
        call = self._client.chat.completions.with_raw_response.create
        return await self._ask("chat", call(model=self._model, messages=asked, extra_body=dict(parameters)), where)

    async def complete(self, prompt: str | Sequence[int], parameters: Mapping[str, Any], where: str) -> Reply:
        """As `chat`, for what follows a text or the ids of its tokens."""
        asked: Any = prompt if isinstance(prompt, str) else list(prompt)
        call = self._client.completions.with_raw_response.create
        return await self._ask("completions", call(model=self._model, prompt=asked, extra_body=dict(parameters)), where)

    async def _ask(self, api: Api, request: Any, where: str) -> Reply:
        openai, words = self._openai, self._words
        try:
            response = await request
            completion = response.parse()
        except openai.APIStatusError as error:
            raise self._refused(error, where, api) from None
        except openai.APITimeoutError:
            problem = f"no reply within {self._endpoint.timeout:g} s"
            fix = f"a longer {words.timeout}, or a lower {words.parallel}"
            raise self._failed(problem, fix, resumes=True) from None
        except openai.APIConnectionError as error:
            cause = self._shown(error.__cause__ or error)
            raise self._failed(
                f"cannot be reached ({cause})", f"start the server, or give its {words.address}", resumes=True
            ) from None
        except (openai.APIError, ValueError) as error:  # JSON that is none
            raise self._no_completion(self._shown(error), api) from None
        reply = read_reply(completion, api, self._without_key, response.retries_taken)
        if reply is None:
            parsed = hasattr(completion, "model_dump_json")
            said = completion.model_dump_json(warnings=False) if parsed else str(completion)
            raise self._no_completion(self._key.line(said), api)
        return reply

    def _no_completion(self, said: str, api: Api) -> InputError:
        problem = f"answers with something else than {_CALLED[api]} ({said})"
        fix = f"give the {self._words.address} of an OpenAI-compatible server, which mostly ends with /v1"
        return self._failed(problem, fix)

    def _refused(self, error: Any, where: str, api: Api) -> InputError:
        code, detail, words = error.status_code, self._shown(error), self._words
        if code in {401, 403}:
            return self._failed(
                f"refuses the API key ({detail})", f"put the right one into {self._endpoint.api_key_env}"
            )
        if code == 404:
            fix = f"a {words.model} that {self._endpoint.shown}/models lists, and a {words.address} that mostly ends with /v1"
            return self._failed(f"has no model {self._model!r}, or no {_CALLED[api][2:]}s ({detail})", fix)
        if code == 429:
            return self._failed(f"asks to wait ({detail})", f"wait, or lower {words.parallel}", resumes=True)
        if code >= 500 or code in {408, 409}:
            return self._failed(f"fails with status {code} ({detail})", "look at the server's log", resumes=True)
        if getattr(error, "code", None) in _FILTERED:
            failed = self._failed(f"its content filter stops {where} ({detail})", "leave the prompt out", resumes=True)
            return PromptRefused(str(failed), "filtered")
        if code == 413 or any(word in detail.lower() for word in _TOO_LONG):
            shorter = f"lower {words.length}, " if words.length is not None else ""
            fix = f"{shorter}start its server with a longer context, or choose another {words.who}"
            failed = self._failed(f"cannot take {where} ({detail})", fix, resumes=True)
            return PromptRefused(str(failed), "too_long")
        fix = f"{words.left_out} leaves out a parameter that the server does not know"
        return self._failed(f"refuses the request of {where} with status {code} ({detail})", fix)

    def _failed(self, problem: str, fix: str, *, resumes: bool = False) -> InputError:
        again = "; then the same command resumes" if resumes else ""
        return InputError(f"{self._words.who} at {self._endpoint.shown}: {problem}; fix: {fix}{again}")

    def _shown(self, error: BaseException) -> str:
        """What an error says, in a line of printable characters without the key."""
        body = getattr(error, "body", None)
        text = body.get("message") if isinstance(body, dict) else None
        return self._key.line(text or error or type(error).__name__)

    def _without_key(self, text: str) -> str:
        """A reply as it is stored."""
        return text if len(self._key.value) < _SHORTEST_KEY else self._key.hidden_in(text)
