"""Text from models, tools and files for a person's screen: nothing in it moves the cursor, changes colours or rings a bell."""

from __future__ import annotations

import re
import textwrap

from harness.watching.time_left import Guess

# Sequences that a terminal acts on: CSI (colours, cursor), OSC and other strings up to their end, and two-character ones.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"
    r"|\x1b[ -/]*[0-~]?"
)
# What is left of control characters, and those that turn the direction of text around.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]|[\ud800-\udfff]")


def plain(text: str) -> str:
    """The text without what a terminal would act on; tabs and line ends stay."""
    return _CONTROLS.sub("", _SEQUENCES.sub("", text))


def line(text: object, width: int | None = None) -> str:
    """As `plain`, on one line, cut to so many characters where it is longer."""
    one = " ".join(plain(str(text)).split())
    return one if width is None or len(one) <= width else textwrap.shorten(one, width, placeholder="…") or one[:width]


def on_one_line(text: str) -> str:
    """As `plain`, with spaces for line ends and tabs."""
    return plain(text).replace("\n", " ").replace("\t", " ")


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def roughly(seconds: float) -> str:
    """As `duration` for what is only guessed: `40 s`, `3 min`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def left(guess: Guess | None) -> str:
    """`about 2 h 10 min left`, or `at least`; empty where nothing is known."""
    return "" if guess is None else f"{'at least' if guess.is_least else 'about'} {roughly(guess.seconds)} left"


def size(number: float) -> str:
    """Bytes as `512 MB` or `1.4 GB`, in steps of a thousand."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def number(value: float) -> str:
    """A number of a training with three or four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
