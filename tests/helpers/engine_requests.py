"""The requests that every engine is asked in these tests: prompts of many lengths, some with newlines, accents and an emoji."""

STOP = ("app", "add", "green", "rown brow")  # the last stands in no single token
_WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "Question",
    "how",
    "many",
    "apples",
    "Answer",
    "café",
    "🙂",
    "42",
]
PROMPTS = [" ".join(_WORDS[(3 * n + k) % len(_WORDS)] for k in range(1 + n)) + "\n" * (n % 2) for n in range(15)] + [
    "the lazy dog " * 60  # longer than the models' context
]
