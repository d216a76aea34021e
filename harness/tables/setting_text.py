"""Settings of trials as text. Records may come from other people: nothing in a name or a value breaks a line or is very long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LONGEST = 120  # characters of one name or value
_UNITS = {"trials": "trials", "tokens": "tokens", "seconds": "s, estimated"}


def settings_text(settings: Mapping[str, Any]) -> str:
    """`kd_rate 0.9, temperature 1`; `the default` for no changes."""
    return ", ".join(f"{printable(name)} {value_text(value)}" for name, value in settings.items()) or "the default"


def value_text(value: Any) -> str:
    """A value of an option."""
    if isinstance(value, float):
        return f"{value:g}"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def budget_text(budget: Mapping[str, Any], *, halving: bool) -> str:
    """`12 trials, halved`: what tuning was allowed, as a matrix says it."""
    known = [
        f"{budget[name]:,.0f} {unit}" for name, unit in _UNITS.items() if isinstance(budget.get(name), (int, float))
    ]
    text = ", ".join(known) or printable(json.dumps(budget, ensure_ascii=False))
    return f"{text}, halved" if halving else text


def printable(text: str) -> str:
    """The text on one line, without characters that are not seen, and cut where it is very long."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
