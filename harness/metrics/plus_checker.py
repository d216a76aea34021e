"""The tests of HumanEval+ and MBPP+: what a function returns is compared with what the data set's solution returns.

The text of this file runs in the sandbox, in the tests' process; it needs the standard library alone. It compares as evalplus
0.3.1 does (`evalplus.eval.unsafe_execute`): the same tolerances, oracles and time limits. The card says what differs.
"""

import copy
import json
import math
import pickle
import reprlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

# Of what a function may take for one input: seconds, and times what the solution takes.
LEAST_SECONDS, SOLUTION_TIMES = 1.0, 4.0
# For all inputs together; at least twice what the solution takes, as the machine may be busy.
ALL_SECONDS, ALL_SOLUTION_TIMES = 60.0, 2.0
FLOAT_TOLERANCE = 1e-6
RELATIVE_TOLERANCE = 1e-7
# Whole numbers of these are no objects to numpy.
LEAST_INTEGER, MOST_INTEGER = -(1 << 63), (1 << 64) - 1


class TooSlow(BaseException):
    """One input took too long."""

    kind = "timeout"


class Broken(BaseException):
    """The data set's own solution failed; that says nothing about the program."""

    kind = "harness_error"


class NoNumbers(Exception):
    """Something that numpy has no numbers for."""


def prepare(settings: str) -> Callable[[Callable[..., Any]], None]:
    """Return what checks a function against the data set's solution, on one input after another.

    `settings` is JSON: `solution`, `entry_point`, `inputs` (lists of arguments), `tolerance`, `oracle` (its name, or null) and
    `converters` (of each argument, by name; the last one for all further ones).
    """
    given = json.loads(settings)
    space: dict[str, Any] = {}
    exec(given["solution"], space)  # the data set's own code
    inputs = [converted(one, given["converters"]) for one in given["inputs"]]
    judge = Judge(given["tolerance"], given["oracle"])
    return lambda function: check(function, space[given["entry_point"]], inputs, judge)


def check(
    function: Callable[..., Any], solution: Callable[..., Any], inputs: Sequence[Sequence[Any]], judge: "Judge"
) -> None:
    """Raise where a function is wrong on one of the inputs, or too slow on one or on all."""
    signal.signal(signal.SIGALRM, _too_slow)
    own, theirs = 0.0, 0.0
    for number, arguments in enumerate(inputs):
        expected, seconds, limit = _expected(solution, arguments)
        theirs += seconds
        left = max(ALL_SECONDS, ALL_SOLUTION_TIMES * theirs) - own
        before = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, max(min(limit, left), 1e-6))
        try:
            returned = function(*arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        own += time.perf_counter() - before
        if not judge.right(returned, expected, arguments):
            raise AssertionError(f"input {number}: {reprlib.repr(returned)} instead of {reprlib.repr(expected)}")


def _expected(solution: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, float, float]:
    """Return the solution's value, the seconds that it took, and those that a function may take.

    What a function returns has to be brought over from another process, which costs evalplus nothing: that is measured too, and
    allowed for.
    """
    own = copy.deepcopy(arguments)
    before = time.perf_counter()
    try:
        value = solution(*own)
    except TooSlow:  # only a program that sends signals gets here; that says nothing about the solution
        raise
    except BaseException as error:
        raise Broken(f"the data set's solution fails: {type(error).__name__}: {error}") from error
    took = time.perf_counter() - before
    try:
        pickle.loads(pickle.dumps(value, protocol=5))
    except (
        pickle.PicklingError,
        TypeError,
        AttributeError,
    ):  # a match object, a generator: nothing large is brought over
        brought = 0.0
    else:
        brought = time.perf_counter() - before - took
    return value, took + brought, max(LEAST_SECONDS, SOLUTION_TIMES * took) + SOLUTION_TIMES * brought


def _too_slow(*_: object) -> None:
    raise TooSlow("one input took too long")


class Judge:
    """Compares values one after another. As in evalplus, a tolerance that floats brought in stays for the inputs after them."""

    def __init__(self, tolerance: float, oracle: str | None) -> None:
        self.tolerance = tolerance
        self.oracle = ORACLES.get(oracle or "", _equal)
        self.root = oracle == "root"

    def right(self, returned: Any, expected: Any, arguments: Sequence[Any]) -> bool:
        """Whether a returned value is right; what cannot be compared is wrong."""
        try:
            if self.root:
                return abs(polynomial(arguments[0], returned)) <= self.tolerance
            exact = self.oracle(returned, expected, arguments, self.tolerance)
            if self.tolerance == 0 and is_floats(expected):
                self.tolerance = FLOAT_TOLERANCE
            if exact or self.tolerance == 0:
                return bool(exact)
            return type(returned) is type(expected) and all_close(returned, expected, self.tolerance)
        except Exception:  # a value that refuses to be compared, whatever it is
            return False


def _equal(returned: Any, expected: Any, *_: Any) -> bool:
    return returned == expected


def _same_set(returned: Any, expected: Any, *_: Any) -> bool:
    return set(returned) == set(expected)


def _not_none(returned: Any, expected: Any, *_: Any) -> bool:
    return (returned if isinstance(returned, bool) else returned is not None) == (expected is not None)


def _anything(*_: Any) -> bool:
    return True


def _or_zero(returned: Any, expected: Any, *_: Any) -> bool:
    return returned in (expected, 0)


def _or_surface(returned: Any, expected: Any, arguments: Sequence[Any], tolerance: float) -> bool:
    """The surface of a square pyramid; its height may be taken for the distance from the base to the apex."""
    if returned == expected:
        return True
    edge, height = arguments
    slant = math.sqrt((edge / 2) ** 2 + height**2)
    return abs(returned - round(edge**2 + 2 * edge * slant)) <= tolerance


def _or_digits(returned: Any, expected: Any, arguments: Sequence[Any], _: float) -> bool:
    """The sum of the differences of the digits; the shorter number may be filled with zeros."""
    if returned == expected:
        return True
    first, second = map(str, arguments)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return returned == sum(abs(int(one) - int(other)) for one, other in pairs)


ORACLES: dict[str, Callable[[Any, Any, Sequence[Any], float], bool]] = {
    "same set": _same_set,
    "not none": _not_none,
    "anything": _anything,
    "or zero": _or_zero,
    "or surface": _or_surface,
    "or digits": _or_digits,
}


def polynomial(coefficients: Sequence[float], x: float) -> float:
    """Return the value of a polynomial, its constant first."""
    return sum(coefficient * math.pow(x, power) for power, coefficient in enumerate(coefficients))


def is_floats(value: Any) -> bool:
    """Whether it is a float, or a list or tuple of nothing else."""
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(one, float) for one in value)
    return isinstance(value, float)


def all_close(returned: Any, expected: Any, tolerance: float) -> bool:
    """Whether numbers, or lists of them of one shape, are equal within the tolerances, as `numpy.allclose` says; nan is not."""
    try:
        (shape, ours), (expected_shape, theirs) = numbers_of(returned), numbers_of(expected)
    except NoNumbers:
        return False
    return shape == expected_shape and all(_close(x, y, tolerance) for x, y in zip(ours, theirs, strict=True))


def _close(x: Any, y: Any, tolerance: float) -> bool:
    finite = math.isfinite(y.real) and math.isfinite(y.imag) if isinstance(y, complex) else math.isfinite(y)
    return x == y or (finite and bool(abs(x - y) <= tolerance + RELATIVE_TOLERANCE * abs(y)))


def numbers_of(value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Return the shape of nested lists and the numbers in them. `NoNumbers` for anything else, as numpy knows none there."""
    if isinstance(value, (bool, int, float, complex)):
        return (), [value]
    if not isinstance(value, (list, tuple)):
        raise NoNumbers
    parts = [numbers_of(one) for one in value]
    if len({shape for shape, _ in parts}) > 1:
        raise NoNumbers
    numbers = [number for _, within in parts for number in within]
    whole = all(isinstance(number, int) for number in numbers)
    if whole and not all(LEAST_INTEGER <= number <= MOST_INTEGER for number in numbers):
        raise NoNumbers
    return (len(value), *(parts[0][0] if parts else ())), numbers


def converted(arguments: Sequence[Any], converters: Sequence[str]) -> Sequence[Any]:
    """Return the arguments as the values that their JSON stands for."""
    last = len(converters) - 1
    return (
        [CONVERTERS[converters[min(number, last)]](one) for number, one in enumerate(arguments)]
        if converters
        else arguments
    )


def _all_tuples(value: Any) -> Any:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "same": lambda value: value,
    "float": float,
    "complex": complex,
    "tuple": tuple,
    "tuples": lambda value: [tuple(one) for one in value],
    "tuple of tuples": lambda value: tuple(tuple(one) for one in value),
    "tuple with tuples": lambda value: tuple(tuple(one) if isinstance(one, list) else one for one in value),
    "all tuples": _all_tuples,
    "sets": lambda value: [set(one) if isinstance(one, list) and one else {} for one in value],
    "tuples by key": lambda value: {key: tuple(one) for key, one in value.items()},
}
