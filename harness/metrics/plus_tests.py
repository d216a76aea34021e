"""Scores functions by the tests of HumanEval+ and MBPP+: base tests, and the many more of evalplus."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.metrics.code import CodeFormat
from harness.metrics.sample import HARNESS_ERROR, INVALID, Advance, SampleScore
from harness.sandbox import Execution, Limits, Program, run_programs

# The tests limit the time of each call and of all (`plus_checker`). These end what hangs before it is called, and hold for the data
# set's solution too: one (Mbpp/599) takes 28 s on the further inputs, on a processor of its own.
BASE_LIMITS = Limits(seconds=30.0, memory=2 << 30)
PLUS_LIMITS = Limits(seconds=300.0, memory=2 << 30)
BASE, PLUS = "base_pass@1", "plus_pass@1"


def plus_program(doc: Mapping[str, Any], source: str, inputs: Sequence[Any]) -> Program:
    """Return a program and its tests on inputs. The data set's solution runs beside the tests, out of the program's reach."""
    settings = {
        "solution": doc["solution"],
        "entry_point": doc["entry_point"],
        "inputs": inputs,
        "tolerance": doc["atol"],
        "oracle": doc["oracle"],
        "converters": doc["converters"],
    }
    context = (
        f"_checker = {{}}\nexec({_checker()!r}, _checker)\n_check = _checker['prepare']({json.dumps(settings)!r})\n"
    )
    return Program(source, tests=f"_check({doc['entry_point']})", functions=(doc["entry_point"],), context=context)


@cache
def _checker() -> str:
    return Path(__file__).with_name("plus_checker.py").read_text(encoding="utf-8")


def score_plus(
    docs: Sequence[Mapping[str, Any]], outputs: Sequence[str], stop: Sequence[str], advance: Advance, form: CodeFormat
) -> list[SampleScore]:
    """Score completions, one for each document; `advance` is called after each. The caller has permission to run them.

    What passes the base tests is run on the others, in a process of its own; what fails them fails both.
    """
    read = [form.read(doc, output, stop) for doc, output in zip(docs, outputs, strict=True)]
    filled = [number for number, (completion, _) in enumerate(read) if completion.strip()]
    base = _run(docs, {number: read[number][1].source for number in filled}, "base_input", BASE_LIMITS)
    passed = [number for number in filled if base[number].outcome == "passed"]
    for _ in range(len(outputs) - len(passed)):
        advance()
    plus = _run(docs, {number: read[number][1].source for number in passed}, "plus_input", PLUS_LIMITS, advance)
    return [_score(completion, base.get(number), plus.get(number)) for number, (completion, _) in enumerate(read)]


def _run(
    docs: Sequence[Mapping[str, Any]],
    sources: Mapping[int, str],
    inputs: str,
    limits: Limits,
    advance: Advance = lambda: None,
) -> dict[int, Execution]:
    programs = [plus_program(docs[number], source, docs[number][inputs]) for number, source in sources.items()]
    return dict(zip(sources, run_programs(programs, limits=limits, advance=advance), strict=True))


def _score(completion: str, base: Execution | None, plus: Execution | None) -> SampleScore:
    if base is None:
        return SampleScore({PLUS: 0.0, BASE: 0.0}, {"completion": None}, INVALID)
    last = plus or base
    tests = "base tests" if plus is None else "further tests"
    detail = f"{tests}: {last.detail}" if last.detail else ""
    scores = {PLUS: _value(last), BASE: _value(base)}
    return SampleScore(scores, {"completion": completion}, last.outcome, detail)


def _value(execution: Execution) -> float | None:
    return None if execution.outcome == HARNESS_ERROR else 100.0 * (execution.outcome == "passed")
