"""Scores answers to BIG-Bench Hard by our rule, by the authors' and by lm-eval's of its chain-of-thought tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from dskd.plugins import load_file
from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics.choice_readers import OptionReader, Reader, WordReader
from harness.metrics.choice_values import BracketReader, NumberReader, OrderReader, TextReader
from harness.metrics.choices import find_choice
from harness.metrics.sample import INVALID, Advance, SampleScore, before_stop
from harness.metrics.scoring_processes import Failed, run_in_processes

_ELSEWHERE = r"\b(?:not|never|away from|different from|other than|short of)\b|n't\b"
# Two words are the only answers there are; statements in the question's own terms say one of them.
_WORDS: dict[str, tuple[tuple[str, str], tuple[tuple[str, str], ...]]] = {
    "boolean_expressions": (("True", "False"), ()),
    "causal_judgement": (("Yes", "No"), ()),
    "formal_fallacies": (("valid", "invalid"), ()),
    "navigate": (
        ("Yes", "No"),
        (
            (
                rf"\b(?:return|end(?:s|ed)? up|back)\b(?:(?!{_ELSEWHERE})[^.\n]){{0,30}}\bstarting point",
                "Yes",
            ),
            (rf"(?:{_ELSEWHERE})[^.\n]{{0,30}}\bstarting point", "No"),
        ),
    ),
    "sports_understanding": (
        ("yes", "no"),
        ((r"\bplausible\b", "yes"), (r"\bimplausible\b|\bnot (?:\w{1,20} )?plausible\b|n't plausible\b", "no")),
    ),
    "web_of_lies": (
        ("Yes", "No"),
        (
            (r"\btells the truth\b|\b(?:is|was) (?:telling the truth|truthful)\b", "Yes"),
            (
                r"\bdoes(?: not|n't) tell the truth\b|\b(?:lies|lied|is lying)\b|\bis(?: not|n't) (?:telling the truth|truthful)\b",
                "No",
            ),
        ),
    ),
}
_OPTION = re.compile(r"^\(([A-Z])\) ?(.*)$", re.MULTILINE)
_THE_ANSWER_IS = "the answer is "
_GET_ANSWER = re.compile(
    r"(?<=the answer is )(.*)(?=.)"
)  # lm-eval's of bbh_cot_fewshot: it drops the line's last character
_STOPS_OF_LM_EVAL = ("</s>", "Q", "\n\n")
_INVALID_AS_LM_EVAL = "[invalid]"
_LM_EVAL_RULES = ("strict-match", "flexible-extract")


def reader_of(doc: Mapping[str, Any]) -> Reader:
    """Return what reads the answers to a question. `task` of a document is the task's name, `input` the question."""
    task, question = doc["task"], doc["input"]
    if task in _WORDS:
        return WordReader(*_WORDS[task])
    if task in ("multistep_arithmetic_two", "object_counting"):
        return NumberReader()
    if task == "dyck_languages":
        return BracketReader(question.rpartition("Input:")[2])
    if task == "word_sorting":
        return OrderReader(question.rpartition("List:")[2].split())
    if not doc["target"].startswith("("):
        return TextReader()  # three rows whose options were split at commas: the key is the text
    return OptionReader(dict(_OPTION.findall(question)))


def score_few_shot(doc: Mapping[str, Any], output: str, stop: Sequence[str]) -> SampleScore:
    """Score an output by our rule, by the authors', and by lm-eval's of bbh_cot_fewshot."""
    answer = _answer(doc, before_stop(output, stop))
    exact = authors_answer(before_stop(output, stop))
    theirs = get_answer(output)
    extracted = {"answer": answer, "exact_match": exact, "get_answer": theirs}
    right = {"exact_match": exact == doc["target"], "get_answer": theirs == doc["target"]}
    return _scored(doc, extracted, right)


def authors_answer(answer: str) -> str | None:
    """Return what follows the last "the answer is " up to the end of the line, without its last full stop; None without these words."""
    _, found, rest = answer.rpartition(_THE_ANSWER_IS)
    return rest.split("\n")[0].strip().removesuffix(".") if found else None


def get_answer(output: str) -> str | None:
    """Return what lm-eval's bbh_cot_fewshot reads, stopping where it stops; None where that says "[invalid]"."""
    matches = _GET_ANSWER.findall(before_stop(output, _STOPS_OF_LM_EVAL))
    return matches[0].strip() if matches else None


def score_zero_shot(
    docs: Sequence[Mapping[str, Any]], outputs: Sequence[str], stop: Sequence[str], advance: Advance
) -> list[SampleScore]:
    """Score outputs by our rule, and by the two filters of lm-eval's bbh_cot_zeroshot, which run in processes with limits."""
    items = [(doc["task"], doc["input"], output) for doc, output in zip(docs, outputs, strict=True)]
    results = run_in_processes(_filtered, items, advance, prepare=_load)
    return [
        _score_zero_shot(doc, before_stop(output, stop), result)
        for doc, output, result in zip(docs, outputs, results, strict=True)
    ]


def _score_zero_shot(doc: Mapping[str, Any], answer: str, result: Sequence[str] | Failed) -> SampleScore:
    found = [_INVALID_AS_LM_EVAL] * 2 if isinstance(result, Failed) else result
    target = _ignored_as_lm_eval(doc["target"])
    right = {
        name: _ignored_as_lm_eval(text) == target for name, text in zip(("strict", "flexible"), found, strict=True)
    }
    read = {name: None if text == _INVALID_AS_LM_EVAL else text for name, text in zip(right, found, strict=True)}
    detail = f"lm-eval's filters: {result.detail}" if isinstance(result, Failed) else ""
    return _scored(doc, {"answer": _answer(doc, answer), **read}, right, detail)


def _filtered(item: tuple[str, str, str]) -> list[str]:
    task, question, output = item
    filters = lm_eval_filters(task)
    return [str(next(iter(filters[name].apply([[output]], [{"input": question}])))[0]) for name in _LM_EVAL_RULES]


@cache
def lm_eval_filters(task: str) -> dict[str, Any]:
    """Return the first step of each filter of lm-eval's bbh_cot_zeroshot for a task, made from its own files."""
    from lm_eval.filters.extraction import RegexFilter

    folder = tasks_of_lm_eval() / "bbh" / "cot_zeroshot"
    settings = yaml.safe_load((folder / f"{task}.yaml").read_text(encoding="utf-8").replace("!function ", ""))
    made = {}
    for entry in settings["filter_list"]:
        step = dict(entry["filter"][0])
        name = step.pop("function").rpartition(".")[2]
        cls = RegexFilter if name == "regex" else getattr(load_file(folder / "utils.py"), name)
        made[entry["name"]] = cls(**step)
    return made


def _load() -> None:
    """Import and read what the filters need, before a process may open nothing more."""
    for path in (tasks_of_lm_eval() / "bbh" / "cot_zeroshot").glob("[a-z]*.yaml"):
        lm_eval_filters(path.stem)
    _filtered(("object_counting", "", "two"))


def _answer(doc: Mapping[str, Any], answer: str) -> str | None:
    return find_choice(reader_of(doc), answer)


def _scored(
    doc: Mapping[str, Any], extracted: dict[str, str | None], right: Mapping[str, bool], detail: str = ""
) -> SampleScore:
    answer = extracted["answer"]
    found = same_choice(answer, doc["target"])
    outcome = INVALID if answer is None else "correct" if found else "wrong"
    return SampleScore(
        {"answer": 100.0 * found, **{name: 100.0 * each for name, each in right.items()}}, extracted, outcome, detail
    )


def same_choice(answer: str | None, target: str) -> bool:
    """Return whether an answer, in its reader's form, is the key. Texts and words are read without case and commas."""
    return answer is not None and answer.lower().replace(",", "") == target.lower().replace(",", "")


def _ignored_as_lm_eval(text: str) -> str:
    r"""Remove what the yaml's regexes_to_ignore remove: "\.$", ",", "\\", "\n" and quotes; no case."""
    return re.sub(r"\.$", "", text).translate(_IGNORED).lower()


_IGNORED = str.maketrans("", "", ',\\\n"')
