"""The contexts and continuations that every engine is asked to score in these tests: all that is odd about where the two meet."""

from __future__ import annotations

from harness.engines.base import Engine, Sampling

PAIRS: list[tuple[str, str]] = [
    ("Question: how many apples?\nAnswer:", " 42"),
    ("Question: how many apples?\nAnswer:", " the lazy dog"),
    ("Question: how many apples?\nAnswer:", " A"),
    ("Question: how many apples?\nAnswer:", " B"),
    ("Question: how many apples?\nAnswer: ", "42"),  # a space that belongs to the continuation
    ("the quick brown\n\n", "fox jumps over"),
    ("99 1", "23 zz"),  # a number that the context divides
    ("", "the quick brown fox"),
    ("", " café"),
    (" \n", "green"),
    ("Le café", " coûte 3 €, naïve 🙂👍🏽 zoë"),
    ("你好", "，世界"),
    ("a", " " + "the quick brown fox jumps over the lazy dog " * 3),  # longer than its context
    ("x", "\n"),
    ("the lazy dog", "</s> the"),  # a special token's text, in some tokenizers
    ("the lazy dog", "<|endoftext|>"),
    ("<s>the quick", " brown"),  # a begin token that is there already
    ("<|endoftext|>the quick", " brown"),
]
# A word that the context divides: where it is one token, the continuation has none of its own.
DIVIDED = ("the quick bro", "wn fox")
# More than the models' context of 128 tokens; the continuation fits.
TOO_LONG = ("the lazy dog " * 60, " jumps over the quick")


def pairs_of(engine: Engine) -> list[tuple[str, str]]:
    """All of these, and continuations that the engine's model itself writes; the same for all engines of a model."""
    contexts = [context for context, _ in PAIRS if context]
    written = engine.complete(contexts, Sampling(max_new_tokens=1))
    own = [(context, one.text) for context, one in zip(contexts, written, strict=True) if one.text.strip()]
    return [*PAIRS, *own, TOO_LONG]
