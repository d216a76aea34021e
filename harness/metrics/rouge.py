"""Rouge-L and exact match for free answers, as Super-NaturalInstructions, MiniLLM and DSKD score them.

Rouge-L is rouge-score's to the last digit: its own tokens and its own formula, with each word stemmed once and a bit-parallel longest
common subsequence. Many answers are scored on all cores.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache

from harness.metrics.sample import INVALID, Advance, SampleScore, before_stop
from harness.metrics.scoring_processes import Failed, run_in_processes
from harness.runs.machine import cores

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile("[a-z0-9]+")
_WORDS_KEPT = 1 << 17  # with their tokens
_CHUNK = 500  # answers that a process is given at once
_SECONDS_A_CHUNK = 600.0
# So many letters of answers and references are scored in the time that it takes to start another process.
_LETTERS_A_WORKER = 10_000_000

Pair = tuple[Sequence[str], str]


def score_responses(
    references: Sequence[Sequence[str]],
    outputs: Sequence[str],
    stop: Sequence[str],
    advance: Advance,
    *,
    workers: int | None = None,
) -> list[SampleScore]:
    """Score outputs, each against the best of its references: Rouge-L (F-measure, stemmed) and exact match.

    `workers` is the number of processes; by default this one scores, and all cores where there is so much that it pays.
    """
    responses = [clean(output, stop) for output in outputs]
    pairs = list(zip(references, responses, strict=True))
    return [
        SampleScore(
            {"rouge_l": rouge, "exact_match": exact}, {"response": response or None}, "scored" if response else INVALID
        )
        for response, (rouge, exact) in zip(responses, _marks(pairs, advance, workers), strict=True)
    ]


def score_response(references: Sequence[str], output: str, stop: Sequence[str]) -> SampleScore:
    """Score one output, as `score_responses`."""
    return score_responses([references], [output], stop, lambda: None)[0]


def _marks(pairs: Sequence[Pair], advance: Advance, workers: int | None) -> Iterator[tuple[float, float]]:
    """The two scores of each pair; in processes of their own where there is much to score."""
    if workers is None:
        letters = sum(len(response) + sum(map(len, references)) for references, response in pairs)
        workers = min(cores(), letters // _LETTERS_A_WORKER, len(pairs) // _CHUNK)
    if workers < 2:
        for pair in pairs:
            yield _mark(pair)
            advance()
        return
    chunks = [pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK)]
    sizes = iter([len(chunk) for chunk in chunks])

    def scored() -> None:
        for _ in range(next(sizes)):
            advance()

    for result in run_in_processes(
        mark_all, chunks, scored, seconds=_SECONDS_A_CHUNK, prepare=prepare, workers=workers
    ):
        if isinstance(result, Failed):
            raise RuntimeError(f"Rouge-L: {result.detail}")
        yield from map(tuple, result)


def prepare() -> None:
    """Import what `mark_all` needs."""
    _tokens("words")


def mark_all(pairs: Sequence[Pair]) -> list[tuple[float, float]]:
    """Return (Rouge-L, exact match) of each pair of references and response; run in processes."""
    return [_mark(pair) for pair in pairs]


def _mark(pair: Pair) -> tuple[float, float]:
    references, response = pair
    return (
        max(rouge_l(reference, response) for reference in references),
        100.0 * any(normalise(reference) == normalise(response) for reference in references),
    )


def clean(output: str, stop: Sequence[str]) -> str:
    """Return the answer as it is scored: cut at the stop, MiniLLM's "<n>" as a newline, without space around it."""
    return before_stop(output, stop).replace("<n>", "\n").strip()


def rouge_l(reference: str, response: str) -> float:
    """Return the F-measure of the longest common subsequence of stemmed words, 0..100.

    rouge-score keeps ASCII letters and digits only: a text in another script has no words and scores 0.
    """
    fmeasure, similarity = _functions()
    target, prediction = _tokens(reference), _tokens(response)
    if not target or not prediction:
        return 0.0
    numbers: dict[str, int] = {}
    one, other = ([numbers.setdefault(token, len(numbers)) for token in tokens] for tokens in (target, prediction))
    common = similarity(one, other)
    return 100.0 * fmeasure(common / len(prediction), common / len(target))


def normalise(text: str) -> str:
    """Return the text as SQuAD's exact match compares it, articles kept: no case, punctuation or extra space."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


@cache
def _functions() -> tuple[Callable[[float, float], float], Callable[[Sequence[int], Sequence[int]], int]]:
    from rapidfuzz.distance import LCSseq
    from rouge_score.scoring import fmeasure

    return fmeasure, LCSseq.similarity


def _tokens(text: str) -> list[str]:
    """rouge-score's tokens of a text: those of its words, which its tokenizer parts before it stems them."""
    token = _token()
    return [found for word in _WORD.findall(text.lower()) if (found := token(word))]


@cache
def _token() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer  # here: it takes a second to import
    from rouge_score.tokenize import tokenize

    stemmer = PorterStemmer()
    return lru_cache(maxsize=_WORDS_KEPT)(lambda word: "".join(tokenize(word, stemmer)))
