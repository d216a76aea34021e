"""Whether an answer follows the instructions of its prompt that a program can check, as IFEval scores.

The checks are lm-eval's (Google's own, Apache-2.0), one class a kind, used as a library. What is changed here is only what would make a
verdict depend on chance, on the network, or on the machine: docs/answers.md says how.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics.punkt import require_punkt
from harness.metrics.sample import INVALID, Advance, SampleScore
from harness.metrics.scoring_processes import Failed, run_in_processes

_CHECKS = ("instructions.py", "instructions_registry.py", "instructions_util.py")
LETTER_FREQUENCY = "keywords:letter_frequency"
_METRICS = ("prompt_strict", "prompt_loose", "inst_strict", "inst_loose")


@dataclass(frozen=True)
class Followed:
    """Which of a prompt's instructions an answer follows, one verdict an instruction, in their order."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def score_answers(docs: Sequence[Mapping[str, Any]], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
    """Return the scores of answers to IFEval's documents, in order; `advance` is called after each.

    The checks run in processes with limits: some of their patterns take quadratic time on text made for it.
    """
    items = [
        (doc["instruction_id_list"], doc["kwargs"], doc["prompt"], output)
        for doc, output in zip(docs, outputs, strict=True)
    ]
    results = run_in_processes(_follows, items, advance, prepare=_load)
    return [_score(item[0], result, item[3]) for item, result in zip(items, results, strict=True)]


def _follows(item: tuple[Sequence[str], Sequence[Mapping[str, Any]], str, str]) -> Followed:
    return follows(*item)


def _load() -> None:
    """Read everything that checks need, before a process may open nothing more."""
    kinds = ("length_constraints:number_sentences", "change_case:capital_word_frequency", "change_case:english_capital")
    for kind in kinds:
        checker = lm_eval_checkers()[kind](kind)
        checker.build_description()
        checker.check_following("ONE. TWO.")


def _score(kinds: Sequence[str], result: Mapping[str, Sequence[bool]] | Failed, output: str) -> SampleScore:
    """Return the scores of one answer; one that goes over the limits of its checks follows nothing."""
    if isinstance(result, Failed):
        failed = result.score(_METRICS)
        nothing: dict[str, str | None] = {"strict": None, "loose": None}
        return replace(failed, extracted=nothing, weights=dict.fromkeys(_METRICS[2:], len(kinds)))
    strict, loose = result["strict"], result["loose"]
    scores: dict[str, float | None] = {
        "prompt_strict": 100.0 * all(strict),
        "prompt_loose": 100.0 * all(loose),
        "inst_strict": 100.0 * sum(strict) / len(kinds),
        "inst_loose": 100.0 * sum(loose) / len(kinds),
    }
    outcome = INVALID if not output.strip() else "correct" if all(strict) else "wrong"
    extracted = {"strict": _named(kinds, strict), "loose": _named(kinds, loose)}
    return SampleScore(scores, extracted, outcome, weights=dict.fromkeys(_METRICS[2:], len(kinds)))


def follows(kinds: Sequence[str], arguments: Sequence[Mapping[str, Any]], prompt: str, answer: str) -> Followed:
    """Return which instructions an answer follows.

    Args:
        kinds: The instructions' kinds, such as "punctuation:no_comma".
        arguments: The arguments of each; null entries are none.
        prompt: The whole prompt, for checks that ask for it.
    """
    checks = [_check(kind, given, prompt) for kind, given in zip(kinds, arguments, strict=True)]
    strict = tuple(_passes(check, answer) for check in checks)
    variants = _variants(answer)
    loose = tuple(
        found or any(_passes(check, variant) for variant in variants)
        for check, found in zip(checks, strict, strict=True)
    )
    return Followed(strict, loose)


def _named(kinds: Sequence[str], verdicts: Sequence[bool]) -> str | None:
    return ", ".join(kind for kind, verdict in zip(kinds, verdicts, strict=True) if verdict) or None


def _variants(answer: str) -> list[str]:
    """The answer without its first line, its last, both, and each of these and the answer itself without asterisks."""
    lines = answer.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    without_asterisks = [text.replace("*", "") for text in (answer, *cut)]
    return [text for text in dict.fromkeys([*without_asterisks, *cut]) if text != answer]


def _passes(check: Callable[[str], bool], answer: str) -> bool:
    try:
        return bool(answer.strip()) and bool(check(answer))
    except RecursionError:  # brackets within brackets, deeper than the JSON parser goes
        return False


def _check(kind: str, arguments: Mapping[str, Any], prompt: str) -> Callable[[str], bool]:
    given = {name: value for name, value in arguments.items() if value}
    letter = given.get("letter", "a")
    if kind == LETTER_FREQUENCY and not (len(letter) == 1 and "a" <= letter.lower() <= "z"):
        return _count_check(letter, given["let_frequency"], given["let_relation"])
    checker = lm_eval_checkers()[kind](kind)
    checker.build_description(**given)
    if "prompt" in (checker.get_instruction_args() or {}):
        checker.build_description(prompt=prompt)
    return checker.check_following


def _count_check(text: str, threshold: int, relation: str) -> Callable[[str], bool]:
    """A count of what is asked for, where lm-eval knows only the letters a to z and would draw one of these at random."""
    return lambda answer: (answer.lower().count(text.lower()) < threshold) == (relation == "less than")


def checks_digest() -> str:
    """Return the sha256 of lm-eval's files of checks, without importing them."""
    digest = hashlib.sha256()
    for name in _CHECKS:
        digest.update((tasks_of_lm_eval() / "ifeval" / name).read_bytes())
    return digest.hexdigest()


@cache
def lm_eval_checkers() -> Mapping[str, Any]:
    """Return lm-eval's classes of checks by kind, made to give one verdict in every process. InputError without nltk's data."""
    require_punkt()  # before the import, which would ask the network for it
    from langdetect import DetectorFactory
    from lm_eval.tasks.ifeval import instructions, instructions_registry

    DetectorFactory.seed = 0  # langdetect draws n-grams at random otherwise
    instructions.logger.setLevel(logging.CRITICAL)  # it logs the whole text of an answer without letters
    return instructions_registry.INSTRUCTION_DICT
