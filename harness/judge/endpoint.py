"""Where the judge is, in the words of `harness judge`."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.endpoints.endpoint import Endpoint, Words

WORDS = Words(
    who="judge",
    command="harness judge",
    extra="judge",
    address="--base-url",
    model="--judge-model",
    timeout="--timeout",
    parallel="--parallel",
    left_out="--parameter NAME=null",
)


@dataclass(frozen=True)
class JudgeEndpoint(Endpoint):
    """The judge's server."""

    words: Words = field(default=WORDS, kw_only=True)
