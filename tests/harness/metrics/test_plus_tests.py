"""HumanEval+'s and MBPP+'s tests: values are compared as evalplus and numpy compare, and a program cannot pass by other ways."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from harness.metrics.code import CodeFormat
from harness.metrics.plus_checker import CONVERTERS, Judge, all_close, converted, prepare
from harness.metrics.plus_tests import BASE, PLUS, score_plus
from harness.sandbox import Program

DOC: dict[str, Any] = {
    "entry_point": "halves",
    "prompt": "def halves(numbers):\n",
    "solution": "def halves(numbers):\n    numbers.sort()\n    return [number / 2 for number in numbers]\n",
    "base_input": [[[1, 2]], [[3]]],
    "plus_input": [[[5, 4]], [[0.1, 0.3]], [[]]],
    "atol": 0,
    "oracle": None,
    "converters": (),
}
WHOLE = CodeFormat(program=lambda _, source: Program(source))


def scores(*sources: str, **changes: Any) -> list[Any]:
    return score_plus([DOC | changes] * len(sources), sources, ("\0",), lambda: None, WHOLE)


def test_a_program_passes_base_and_further_tests_apart() -> None:
    right, base_alone, wrong, blank, broken = scores(
        "def halves(numbers): return sorted(number * 0.5 + 1e-8 for number in numbers)",
        "def halves(numbers): return [number / 2 for number in numbers]",
        "def halves(numbers): return numbers",
        "  ",
        "def halves(:",
    )
    assert [one.scores for one in (right, base_alone, wrong, blank, broken)] == [
        {PLUS: 100.0, BASE: 100.0},
        {PLUS: 0.0, BASE: 100.0},
        *[{PLUS: 0.0, BASE: 0.0}] * 3,
    ]
    outcomes = [one.outcome for one in (right, base_alone, wrong, blank, broken)]
    assert outcomes == ["passed", "failed", "failed", "invalid", "syntax_error"]
    assert base_alone.detail == "further tests: AssertionError: input 0: [2.5, 2.0] instead of [2.0, 2.5]"


def test_a_function_that_changes_its_argument_spoils_no_input() -> None:
    assert (
        scores("def halves(n):\n    n.sort()\n    r = [x / 2 for x in n]\n    n.clear()\n    return r")[0].scores[PLUS]
        == 100.0
    )


CHEATS = [
    "class Same:\n    def __eq__(self, other): return True\n    def __len__(self): return 2\ndef halves(n): return Same()",
    "class Same(list):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef halves(n): return Same()",
    "class Same(float):\n    def __eq__(self, other): return True\n    def __sub__(self, other): return 0\ndef halves(n): return [Same()]",
    "import sys\ndef halves(n): sys.exit(0)",
    "import os\ndef halves(n): os._exit(0)",
    "import sys\nsys.exit(0)",
    "import sys\ndef halves(n):\n    frame = sys._getframe()\n    while frame:\n        for key, value in list(frame.f_locals.items()):\n"
    "            if key == 'expected': return value\n        frame = frame.f_back",
    "def halves(n): return _checker",
    "import gc\ndef halves(n):\n    return next(o for o in gc.get_objects() if isinstance(o, dict) and 'solution' in o)['solution'](n)",
    'import os\ndef halves(n):\n    for d in range(3, 64):\n        try: os.write(d, b\'{"outcome": "passed", "detail": ""}\\n\')\n'
    "        except OSError: pass",
    "import builtins\nbuiltins.all = lambda values: True\ndef halves(n): return [0.0] * len(n)",
]


def test_no_program_passes_by_other_ways_than_the_right_values() -> None:
    assert [one.scores for one in scores(*CHEATS)] == [{PLUS: 0.0, BASE: 0.0}] * len(CHEATS)


def test_one_slow_call_ends_the_program_and_is_a_timeout() -> None:
    (slow,) = scores("import time\ndef halves(n): time.sleep(60)")
    assert (slow.outcome, slow.detail) == ("timeout", "base tests: TooSlow: one input took too long")


def test_a_solution_that_fails_is_the_data_s_fault_and_no_wrong_answer() -> None:
    (one,) = scores("def halves(n): return []", solution="def halves(n): return 1 / 0")
    assert one.scores == {PLUS: None, BASE: None}
    assert one.outcome == "harness_error"


@pytest.mark.parametrize(
    ("oracle", "returned", "expected", "arguments", "right"),
    [
        (None, [1, 2], [1, 2], (), True),
        (None, (1, 2), [1, 2], (), False),
        (None, 1, 1.0, (), True),
        (None, 1.0 + 1e-7, 1.0, (), True),
        (None, 1.0 + 1e-5, 1.0, (), False),
        (None, 2, 2.0000001, (), False),  # another type, not equal
        (None, True, 1, (), True),
        (None, float("nan"), float("nan"), (), False),
        (None, float("inf"), float("inf"), (), True),
        (None, None, None, (), True),
        ("same set", [1, 2, 2], (2, 1), (), True),
        ("same set", [[1]], [[1]], (), False),  # no set can be made
        ("not none", "a match", object(), (), True),
        ("not none", False, None, (), True),
        ("not none", 0, None, (), False),
        ("anything", "whatever", 1, (), True),
        ("or zero", 0, 5, (), True),
        ("or surface", 24, 1, (3, 2), True),
        ("or surface", "24", 1, (3, 2), False),
        ("or digits", 3, 1, (12, 3), False),
        ("or digits", 2, 1, (12, 3), True),
        ("root", 0.5, None, ([-1, 2],), True),
        ("root", 0.6, None, ([-1, 2],), False),
    ],
)
def test_values_are_right_by_the_oracle_of_their_problem(
    oracle: str | None, returned: Any, expected: Any, arguments: tuple[Any, ...], right: bool
) -> None:
    assert Judge(1e-4 if oracle == "root" else 0, oracle).right(returned, expected, arguments) is right


def test_a_tolerance_that_a_float_brought_in_stays_as_in_evalplus() -> None:
    judge = Judge(0, None)
    assert not judge.right(100_000_001, 100_000_002, ())
    assert judge.right(0.5, 0.5, ())
    assert judge.right(100_000_001, 100_000_002, ())


def test_numbers_are_close_where_numpy_says_so() -> None:
    chance = random.Random(0)
    special = [0, 1, True, 1.0, -1, 1e-9, 1e-6, 1e300, math.inf, -math.inf, math.nan, 1j, "1", None, [], 1 + 1e-7]

    def value(depth: int = 2) -> Any:
        if depth and chance.random() < 0.6:
            return [value(depth - 1) for _ in range(chance.randint(0, 3))]
        return chance.choice(special)

    def numpy_says(one: Any, other: Any, tolerance: float) -> bool:
        try:
            return np.shape(one) == np.shape(other) and bool(np.allclose(one, other, rtol=1e-7, atol=tolerance))
        except (TypeError, ValueError):
            return False

    agreed = 0
    with np.errstate(all="ignore"):
        for _ in range(4000):
            one = value()
            other = one if chance.random() < 0.3 else value()
            close = all_close(one, other, 1e-6)
            assert close == numpy_says(one, other, 1e-6), (one, other)
            agreed += close
    assert agreed > 400


def test_whole_numbers_too_large_for_numpy_s_arrays_are_never_close() -> None:
    assert not all_close([2**70], [2**70 + 1], 1e-6)
    with pytest.raises(TypeError):
        np.allclose([2**70], [2**70 + 1], rtol=1e-7, atol=1e-6)


def test_inputs_become_the_values_that_their_json_stands_for() -> None:
    assert converted([[1], [2], [3]], ("tuple",)) == [(1,), (2,), (3,)]
    assert converted([[1], 2, 3], ("tuple", "same")) == [(1,), 2, 3]
    assert CONVERTERS["tuples"]([[1], [2]]) == [(1,), (2,)]
    assert CONVERTERS["tuple of tuples"]([[1], [2]]) == ((1,), (2,))
    assert CONVERTERS["tuple with tuples"]([1, [2]]) == (1, (2,))
    assert CONVERTERS["all tuples"]([1, [2, [3]]]) == (1, (2, (3,)))
    assert CONVERTERS["sets"]([[1, 1], [], {}]) == [{1}, {}, {}]
    assert CONVERTERS["tuples by key"]({"a": [1]}) == {"a": (1,)}
    assert CONVERTERS["complex"]("(1+2j)") == 1 + 2j


def test_values_that_json_has_no_word_for_travel_too() -> None:
    settings = {"solution": "def f(x): return x", "entry_point": "f", "tolerance": 0, "oracle": None, "converters": ()}
    check = prepare(json.dumps(settings | {"inputs": [[math.inf], [10**4000], ["\ud800\0"], [-0.0]]}))
    check(lambda x: x)
    with pytest.raises(AssertionError, match="input 0"):
        check(lambda x: 0)
