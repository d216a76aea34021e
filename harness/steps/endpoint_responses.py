"""A teacher's responses to the prompts of a training set, from a server that speaks OpenAI's API in place of an engine here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import dskd.data
from dskd.compatibility import Problem
from dskd.data.options import Takes, takes_of
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import Template, template_of
from harness import responses
from harness.costs.token_price import TokenPrice
from harness.costs.work import Device, Work
from harness.endpoints.endpoint import Endpoint, Words
from harness.endpoints.log import ReplyLog
from harness.endpoints.replies import Api
from harness.responses.prompts import asked_of, prompt_key, rows_by_prompt
from harness.responses.requests import Asking
from harness.runs.job_context import JobContext
from harness.runs.store import write_jsonl_atomic
from harness.steps.base import NOT_IDENTITY, Input, Of, Step, TokenizerInput
from harness.steps.data import Examples, read_examples

REPLIES = "replies.jsonl"


class TeacherEndpoint(Input):
    """A teacher by its address: no weights of it are here. What it is called there is what it is; where that is does not matter.

    Attributes:
        name: The teacher's in the matrix.
        model: What its server calls it.
        api: Whether it is asked by messages or given a text.
        addresses: Of replicas, each with its `/v1`.
        tokenizer: Where it is here, its template says how prompts are asked, and its markers what is reasoning; a completions API is
            given the ids that a local teacher would get.
        template: Without a tokenizer: how it is asked (`Asking.template`).
        api_key_env: The environment variable with its API key.
        timeout: Of a request, in seconds.
        retries: Of a request that fails for a while.
        parallel: Requests at a time.
    """

    name: Annotated[str, NOT_IDENTITY] = ""
    model: str
    api: Api = "chat"
    addresses: Annotated[tuple[str, ...], NOT_IDENTITY, Field(min_length=1)]
    tokenizer: Of[TokenizerInput] | None = None
    template: Template | None = None
    api_key_env: Annotated[str, NOT_IDENTITY] = "OPENAI_API_KEY"
    timeout: Annotated[float, NOT_IDENTITY] = 300.0
    retries: Annotated[int, NOT_IDENTITY] = 10
    parallel: Annotated[int, NOT_IDENTITY] = 8

    @property
    def endpoints(self) -> list[Endpoint]:
        """Its replicas. InputError for what is no address."""
        key = f"models.{self.name}"
        words = Words(
            who=f"teacher {self.name}",
            command=key,
            extra="endpoints",
            address=f"address of {key}",
            model=f"name in {key}",
            timeout="timeout",
            parallel="parallel",
            left_out="parameters: {NAME: null}",
            length="max_new_tokens",
        )
        return [
            Endpoint(address, self.api_key_env, self.timeout, self.retries, words=words) for address in self.addresses
        ]


class EndpointResponses(Step):
    """The prompts of a training set with responses of a teacher behind an endpoint: the same product as `TeacherResponses`.

    Every reply is in `replies.jsonl` as it came, on the disk before the next; that file stays, for it may have been paid for.

    Attributes:
        samples, together, parameters: As of `Asking`.
        price: Of tokens, for the report.
    """

    kind, version, place, product = "endpoint-responses", 1, "answers", "answers.jsonl"

    examples: Of[Examples]
    limit: int | None
    teacher: Of[TeacherEndpoint]
    samples: int = 1
    together: bool = False
    max_new_tokens: int
    temperature: float
    parameters: dict[str, Any] = Field(default_factory=dict)
    seed: int
    price: Annotated[TokenPrice | None, NOT_IDENTITY] = None

    @property
    def name(self) -> str:
        """What its examples are called in records."""
        return f"{self.examples.name}, answered by {self.teacher.name}"

    @property
    def reaches(self) -> dict[str, tuple[str, ...]]:
        return {self.teacher.name: self.teacher.addresses}

    def takes(self, root: Path) -> Takes:
        """What the teacher is asked by, and its responses are written as."""
        tokenizer = self._tokenizer(root)
        return takes_of(template_of(tokenizer) if tokenizer is not None else self.teacher.template)

    def estimate(self, device: Device) -> list[Work]:
        """Nothing is computed here."""
        return []

    def preflight(self, root: Path) -> Sequence[Problem]:
        """Check addresses, key and settings; nothing is asked."""
        for endpoint in self.teacher.endpoints:
            endpoint.key()
        self.asking(self.teacher.template)
        return ()

    def asking(self, template: Template | None) -> Asking:
        """How the teacher is asked. InputError for settings that do not go together."""
        own = ("samples", "together", "max_new_tokens", "temperature", "parameters", "seed")
        settings = {name: getattr(self, name) for name in own}
        asking = Asking(self.teacher.api, self.teacher.model, template=template, **settings)
        asking.check("parameters")
        return asking

    def run(self, job: JobContext) -> None:
        """Ask for the responses; what was answered before a kill is not asked again. InputError where nothing can be used."""
        tokenizer = self._tokenizer(job.root)
        template = template_of(tokenizer) if tokenizer is not None else self.teacher.template
        takes = takes_of(template)
        path, _ = read_examples(self.examples, job.root, job.folder, takes, self.limit)
        items = dskd.data.iter_examples(path, takes, limit=self.limit)
        prompts = [asked_of(item) for item in items]
        rows, report = responses.respond(
            prompts,
            self.asking(template),
            self.teacher.endpoints,
            ReplyLog(job.folder / REPLIES),
            tokenizer=tokenizer,
            parallel=self.teacher.parallel,
            price=self.price,
            advance=partial(job.advance, f"responses by {self.teacher.model}"),
        )
        write_jsonl_atomic(self.path(job.root), rows)
        answered = rows_by_prompt(self.path(job.root), takes)
        report["without_text"] = sum(prompt_key(prompt) not in answered for prompt in prompts)
        print(json.dumps(report, indent=2), flush=True)
        cost = job.cost(tokens=report["generated_tokens"], teacher_examples=report["prompts"])
        job.finish(job.output, report=report, cost=cost)

    def _tokenizer(self, root: Path) -> Any | None:
        return None if self.teacher.tokenizer is None else load_tokenizer(self.teacher.tokenizer.path(root))
