"""What goes between the tests' process and the program's: plain data, both ways."""

from __future__ import annotations

import pytest

from harness.sandbox import Limits, Program
from harness.sandbox.execution import run
from harness.sandbox.isolation import Isolation

LIMITS = Limits(seconds=20.0)


@pytest.mark.parametrize(
    "value",
    [
        "None",
        "True",
        "10**5000",
        "-0.5",
        "float('inf')",
        "1j",
        "'\\ud800é\\0'",
        "b'\\0'",
        "[1, (2, {3: {4}}), frozenset({5})]",
        "range(3)",
        "__import__('collections').Counter('aab')",
        "__import__('collections').OrderedDict(a=1)",
        "__import__('collections').deque([1])",
        "__import__('fractions').Fraction(1, 3)",
        "__import__('decimal').Decimal('0.1')",
        "__import__('datetime').date(2020, 1, 2)",
    ],
)
def test_a_value_comes_over_as_it_is(value: str, isolation: Isolation) -> None:
    tests = (
        f"value = f({value}, key={value})\nassert value == [{value}, {value}]\nassert type(value[0]) is type({value})"
    )
    ended = run(Program("def f(x, key): return [x, key]", tests, ("f",)), isolation, LIMITS)
    assert ended.outcome == "passed", ended


@pytest.mark.parametrize(
    ("returned", "test"),
    [
        ("(k for k in (1, 2))", "assert list(f()) == [1, 2] and f() != [1, 2]"),
        ("map(str, (1, 2))", "assert next(f()) == '1'"),
        ("{1: 2}.keys()", "assert f() == {1}"),
        ("{1: 2}.values()", "assert list(f()) == [2]"),
        ("{1: 2}.items()", "assert dict(f()) == {1: 2}"),
        ("__import__('re').match('a', 'a')", "assert f()"),
        ("__import__('collections').defaultdict(list, a=[1])", "assert f() == {'a': [1]} and f()['b'] == []"),
    ],
)
def test_what_is_no_plain_data_serves_the_tests_as_far_as_it_can(
    returned: str, test: str, isolation: Isolation
) -> None:
    ended = run(Program(f"def f(): return {returned}", test, ("f",)), isolation, LIMITS)
    assert ended.outcome == "passed", ended


def test_an_object_is_equal_to_nothing_and_the_detail_says_why(isolation: Isolation) -> None:
    source = "class Same:\n    def __eq__(self, other): return True\ndef f(): return Same()"
    ended = run(Program(source, "assert f() == 1", ("f",)), isolation, LIMITS)
    assert (ended.outcome, ended.detail) == ("failed", "AssertionError: (Same returned, which is no plain data)")


@pytest.mark.parametrize(
    ("raised", "outcome", "detail"),
    [
        ("ValueError('no')", "exception", "ValueError: no"),
        ("AssertionError('own')", "failed", "AssertionError: own"),
        ("type('Mine', (KeyError,), {})('k')", "exception", "Mine: 'k'"),
        ("UnicodeDecodeError('utf-8', b'x', 0, 1, 'why')", "exception", "UnicodeDecodeError: "),
        ("MemoryError()", "memory", "MemoryError"),
        ("KeyboardInterrupt()", "failed", "KeyboardInterrupt"),
    ],
)
def test_what_a_function_raises_is_what_the_tests_see(
    raised: str, outcome: str, detail: str, isolation: Isolation
) -> None:
    ended = run(Program(f"def f(): raise {raised}", "f()", ("f",)), isolation, LIMITS)
    assert ended.outcome == outcome, ended
    assert ended.detail.startswith(detail)


def test_tests_may_expect_an_exception(isolation: Isolation) -> None:
    source = "class Mine(ValueError): pass\ndef f(): raise Mine('x')"
    tests = "try:\n    f()\nexcept ValueError as error:\n    assert str(error) == 'x'\nelse:\n    assert False"
    assert run(Program(source, tests, ("f",)), isolation, LIMITS).outcome == "passed"


def test_a_missing_function_is_the_program_s_error(isolation: Isolation) -> None:
    ended = run(Program("def g(): pass", "f()", ("f",)), isolation, LIMITS)
    assert (ended.outcome, ended.detail) == ("exception", "NameError: name 'f' is not defined")


def test_tests_use_their_context_and_not_what_the_program_made_of_it(isolation: Isolation) -> None:
    source = "def helper(x): return 0\ndef f(x): return 0"
    context = "import math\ndef helper(x): return math.floor(x)\ndef f(x): pass"
    assert run(Program(source, "assert helper(1.5) == f(1.5)", ("f",), context), isolation, LIMITS).outcome == "failed"


@pytest.mark.parametrize(("context", "tests"), [("def f(:", ""), ("1 / 0", ""), ("", "assert ("), ("", "f(lambda: 1)")])
def test_what_is_wrong_with_the_tests_is_never_the_program_s_fault(
    context: str, tests: str, isolation: Isolation
) -> None:
    assert run(Program("def f(x): return 1", tests, ("f",), context), isolation, LIMITS).outcome == "harness_error"
