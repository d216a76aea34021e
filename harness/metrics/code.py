"""Scores functions by running their tests, as HumanEval does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.metrics.sample import HARNESS_ERROR, INVALID, Advance, SampleScore, before_stop
from harness.sandbox import Execution, Program, run_programs

_OPENING = re.compile(r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*\n", re.MULTILINE)


def program(doc: Mapping[str, Any], completion: str) -> Program:
    """Return the program of a HumanEval document and a completion, and its tests.

    Some tests use what the prompt imports or defines besides the function (HumanEval/32, /38, /50); the prompt by itself is that
    function with an empty body, so it serves as their context. A completion that has the whole function is put after the prompt and
    replaces the empty one: what the prompt imports and defines beside it stays.
    """
    between = "\n" if defines(completion, doc["entry_point"]) else ""
    return Program(
        source=f"{doc['prompt']}{between}{completion}\n",
        tests=f"{doc['test']}\ncheck({doc['entry_point']})",
        functions=(doc["entry_point"],),
        context=doc["prompt"],
    )


def fenced_code(answer: str) -> str:
    """Take the code out of a chat model's answer; a sample's `extracted` shows the result.

    It is the first block that is fenced by three or more backticks or tildes, whatever language it names, to its closing fence, or
    to the answer's end where a limit cut it. An answer without a fence is taken whole.
    """
    opening = _OPENING.search(answer)
    if opening is None:
        return answer
    rest = answer[opening.end() :]
    closing = re.search(rf"^[ \t]*{opening['fence']}", rest, re.MULTILINE)
    return rest[: closing.start()] if closing else rest


def defines(code: str, name: str) -> bool:
    """Whether the code has a function of this name at its top level."""
    return re.search(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(name)}[ \t]*\(", code, re.MULTILINE) is not None


def score_completions(
    docs: Sequence[Mapping[str, Any]],
    outputs: Sequence[str],
    stop: Sequence[str],
    advance: Advance,
    program_of: Callable[[Mapping[str, Any], str], Program] = program,
) -> list[SampleScore]:
    """Score completions, one for each document; `advance` is called after each. The caller has permission to run them.

    `program_of` puts a document and a completion together; by default as HumanEval does.

    A model that is asked by an instruction ends its answer itself (no `stop`), and may put the function into a fenced block.
    A blank completion is invalid and not run: a function without a body passes no test.
    """
    completions = [before_stop(output, stop) if stop else fenced_code(output) for output in outputs]
    to_run = [number for number, completion in enumerate(completions) if completion.strip()]
    for _ in range(len(outputs) - len(to_run)):
        advance()
    executions = run_programs([program_of(docs[number], completions[number]) for number in to_run], advance=advance)
    ended = dict(zip(to_run, executions, strict=True))
    return [_score(completion, ended.get(number)) for number, completion in enumerate(completions)]


def _score(completion: str, execution: Execution | None) -> SampleScore:
    if execution is None:
        return SampleScore({"pass@1": 0.0}, {"completion": None}, INVALID)
    passed = None if execution.outcome == HARNESS_ERROR else 100.0 * (execution.outcome == "passed")
    return SampleScore({"pass@1": passed}, {"completion": completion}, execution.outcome, execution.detail)
