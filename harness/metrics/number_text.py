r"""Reads the numbers of a text: 1,800, 1 800, 1'800, 1.8e3, 1.8 × 10^3, 9/2, 4 1/2, 5:00.

Values are exact fractions. docs/answers.md, "Numbers", says which forms are read, which are not, and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial

# Longer digit strings, and greater exponents, are a model that cannot stop, and costly to turn into a number.
MOST_DIGITS = 200
_SHOWN = 20

_WHOLE = r"""
    [0-9]{1,3}(?:(?P<separator>[,\ '_])[0-9]{3})(?:(?P=separator)[0-9]{3}){0,60}(?![0-9])(?:\.[0-9]+)?+   # 1,800.50
  | [0-9]{1,2}(?:,[0-9]{2}){1,6},[0-9]{3}(?![0-9])(?:\.[0-9]+)?+                                   # India: 18,00,000
"""
# A comma is a decimal sign only where it can be nothing else.
_DECIMAL_COMMA = r"""
    [0-9]{1,3}(?:\.[0-9]{3}){1,9},[0-9]{1,9}(?![0-9])                # 1.800,50
  | [0-9]{1,3}(?:\.[0-9]{3}){2,9}(?![0-9]|\.[0-9])                   # 1.800.000
  | [0-9]{1,3}(?:[\ '][0-9]{3}){1,9},[0-9]{1,2}(?![0-9])             # 1 800,50
  | (?:(?<=€)|(?<=€\ ))[0-9]{1,9},[0-9]{2}(?![0-9])
  | [0-9]{1,9},[0-9]{2}(?=\ ?(?:€|EUR\b|[Ee]uros?\b))
"""
_NUMBER = re.compile(
    rf"""
    (?=[-.0-9])
    (?P<sign>(?<![0-9A-Za-z)\]}}%^])-(?:\((?=[0-9]{{1,9}}/[0-9]{{1,9}}\)))?)?
    (?<![A-Za-z0-9_^√])(?<!\^-)(?<![0-9]\.)   # the 2 of m2 and m^2 is no number, nor is a part of one
    (?:
        (?P<hour>[0-9]{{1,2}}):(?P<minutes>[0-9]{{2}}(?::[0-9]{{2}})?)(?![0-9])
      | (?P<mixed>[0-9]{{1,4}})(?:\ {{1,2}}|\ and\ {{1,2}})(?P<part>[0-9]{{1,3}})/(?P<of>[0-9]{{1,3}})(?![0-9/])
      | (?P<comma>{_DECIMAL_COMMA})
      | (?P<digits>{_WHOLE}|[0-9]++(?:\.[0-9]++)?|\.[0-9]++)
        (?P<power>
            [eE][-+]?[0-9]{{1,9}}(?![0-9A-Za-z])
          | \ ?[×xX*·]\ ?10\ ?(?:\^|\*\*)\ ?\(?[-+]?[0-9]{{1,9}}(?![0-9])\)?
        )?
        (?P<exponent>\ ?\^\ ?\(?-?[0-9]{{1,9}}(?![0-9])\)?)?
        (?:\ ?/\ ?(?P<denominator>[0-9]{{1,200}}+(?:\.[0-9]{{1,200}}+)?)(?!\ ?/\ ?[0-9]))?
    )
    (?!\ ?[√π])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Number:
    """A number and where it is in its text, whose value is read only where it is asked for."""

    start: int
    end: int
    digits: str
    read: Callable[[], Fraction | None]

    @cached_property
    def value(self) -> Fraction | None:
        """The exact value; None where it has too many digits to have one."""
        return self.read()

    @property
    def text(self) -> str:
        """The value as text, equal for equal values: "18", "18.5", "1/3"; the first digits of one without end."""
        return f"{self.digits[:_SHOWN]}…" if self.value is None else _written(self.value)


def numbers(text: str) -> list[Number]:
    """Return the numbers of a text that `plain` has returned."""
    return list(_numbers(text))


def _numbers(text: str) -> Iterator[Number]:
    for match in _NUMBER.finditer(text):
        if match["hour"]:
            # A clock's full hour is a number, half past two is none.
            if not match["minutes"].strip("0:"):
                yield _number(match, "hour")
        elif match["mixed"]:
            yield from _mixed(match)
        elif match["comma"]:
            yield _number(match, "comma", re.sub(r"[. ']", "", match["comma"]).replace(",", "."))
        else:
            yield Number(match.start(), match.end(), match["digits"], partial(_value, match))


def _number(match: re.Match[str], name: str, digits: str | None = None) -> Number:
    value = _sign(match) * Fraction(digits or match[name])
    return Number(match.start(), match.end(), match[name], lambda: value)


def _mixed(match: re.Match[str]) -> Iterator[Number]:
    """4 1/2 is one number; 4 and 9/2 are two."""
    whole, part, of = (int(match[name]) for name in ("mixed", "part", "of"))
    fraction = Fraction(part, of or 1)
    if 0 < part < of:
        value = _sign(match) * (whole + fraction)
        yield Number(match.start(), match.end(), match["mixed"], lambda: value)
    else:
        yield Number(match.start(), match.end("mixed"), match["mixed"], lambda: Fraction(_sign(match) * whole))
        yield Number(match.start("part"), match.end(), match["part"], lambda: fraction)


def _sign(match: re.Match[str]) -> int:
    return -1 if match["sign"] else 1


def _value(match: re.Match[str]) -> Fraction | None:
    digits = re.sub(r"[, '_]", "", match["digits"])
    if len(digits) > MOST_DIGITS:
        return None
    value = _sign(match) * Fraction(digits)
    if match["power"]:
        shift = int(re.split(r"[eE(^*]", match["power"].rstrip(")"))[-1])
        if abs(shift) > MOST_DIGITS:
            return None
        value *= Fraction(10) ** shift
    if match["exponent"]:
        exponent = int(match["exponent"].strip(" ^()"))
        if len(digits) * abs(exponent) > MOST_DIGITS or (exponent < 0 and not value):
            return None
        value = _sign(match) * abs(value) ** exponent  # -2^2 is -4
    if match["denominator"] and (denominator := Fraction(match["denominator"])):
        value /= denominator
    return value


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    while rest % 10 == 0 or rest % 2 == 0 or rest % 5 == 0:
        rest, places = rest // (10 if rest % 10 == 0 else 2 if rest % 2 == 0 else 5), places + 1
    if rest != 1:
        return str(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:].rstrip('0')}"
