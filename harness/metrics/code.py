"""Scores functions by running their tests, as HumanEval does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.metrics.code_answers import read_code
from harness.metrics.code_pieces import defined_in_text, future_first
from harness.metrics.sample import HARNESS_ERROR, INVALID, Advance, SampleScore, before_stop
from harness.sandbox import Execution, Program, run_programs


def program_of_its_own(doc: Mapping[str, Any], completion: str) -> Program:
    """Return a completion as a program without a prompt before it, and without tests."""
    return Program(source=f"{completion}\n", functions=(doc["entry_point"],))


def program(doc: Mapping[str, Any], completion: str) -> Program:
    """Return the program of a HumanEval document and a completion, and its tests.

    Some tests use what the prompt imports or defines besides the function (HumanEval/32, /38, /50); the prompt by itself is that
    function with an empty body, so it serves as their context. A completion that has the whole function is put after the prompt and
    replaces the empty one: what the prompt imports and defines beside it stays.
    """
    return Program(
        source=continued(doc, completion),
        tests=f"{doc['test']}\ncheck({doc['entry_point']})",
        functions=(doc["entry_point"],),
        context=doc["prompt"],
    )


def continued(doc: Mapping[str, Any], completion: str) -> str:
    """Return a prompt and its completion, which is the function's body or the function anew, as one program."""
    between = "\n" if defined_in_text(completion, doc["entry_point"]) else ""
    return f"{doc['prompt']}{between}{completion}\n"


@dataclass(frozen=True)
class CodeFormat:
    """How documents of a data set become programs; by default as HumanEval's do.

    `program` puts a document and a completion together. `functions` are the names that the tests call, `also` others that they
    need; `prompt` is what a completion may continue, empty where only whole programs are asked for.
    """

    program: Callable[[Mapping[str, Any], str], Program] = program
    functions: Callable[[Mapping[str, Any]], Sequence[str]] = lambda doc: (doc["entry_point"],)
    also: Callable[[Mapping[str, Any]], Sequence[str]] = lambda _: ()
    prompt: Callable[[Mapping[str, Any]], str] = lambda doc: doc["prompt"]

    def completion(self, doc: Mapping[str, Any], answer: str) -> str:
        """Return the code of a chat model's answer (docs/answers.md)."""
        return read_code(answer, self.functions(doc), also=self.also(doc), prompt=self.prompt(doc))

    def read(self, doc: Mapping[str, Any], output: str, stop: Sequence[str]) -> tuple[str, Program]:
        """Return what is run of an output, and the program: up to a stop, or, where there are none, a chat model's code."""
        if stop:
            completion = before_stop(output, stop)
            return completion, self.program(doc, completion)
        completion = self.completion(doc, output)
        whole = self.program(doc, completion)
        return completion, replace(whole, source=future_first(whole.source))


def score_completions(
    docs: Sequence[Mapping[str, Any]],
    outputs: Sequence[str],
    stop: Sequence[str],
    advance: Advance,
    form: CodeFormat | None = None,
) -> list[SampleScore]:
    """Score completions, one for each document; `advance` is called after each. The caller has permission to run them.

    A model that is asked by an instruction ends its answer itself (no `stop`), and puts the function somewhere in it.
    A blank completion is invalid and not run: a function without a body passes no test.
    """
    form = form or CodeFormat()
    read = [form.read(doc, output, stop) for doc, output in zip(docs, outputs, strict=True)]
    to_run = [number for number, (completion, _) in enumerate(read) if completion.strip()]
    for _ in range(len(outputs) - len(to_run)):
        advance()
    executions = run_programs([read[number][1] for number in to_run], advance=advance)
    ended = dict(zip(to_run, executions, strict=True))
    return [_score(completion, ended.get(number)) for number, (completion, _) in enumerate(read)]


def _score(completion: str, execution: Execution | None) -> SampleScore:
    if execution is None:
        return SampleScore({"pass@1": 0.0}, {"completion": None}, INVALID)
    passed = None if execution.outcome == HARNESS_ERROR else 100.0 * (execution.outcome == "passed")
    return SampleScore({"pass@1": passed}, {"completion": completion}, execution.outcome, execution.detail)
