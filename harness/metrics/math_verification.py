r"""What math-verify says of answers. For the processes of `harness.metrics.scoring_processes` only.

It parses LaTeX with ANTLR and compares with sympy. Neither is made for hostile text: 9^{9^{9^9}} hangs them, and of an infinite sum
sympy generates Python code in which the names of variables stand as they are, so that \text{...} in an answer would be run. Here no
code is generated from an answer.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

_EXACT_BELOW = 1e-3  # math-verify rounds to six decimals: of smaller numbers too little is left
_RELATIVE = 1e-5


def prepare() -> None:
    """Import what `judge` needs, and keep sympy from making code out of answers; once in each process, before its limits."""
    import math_verify
    from sympy.core import evalf

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that nothing but this process has a clock
    # An infinite sum is then summed numerically in another way, which sympy has for the sums that this one cannot do.
    evalf.lambdify = _no_code
    sys.addaudithook(_refuse_generated_code)
    # What is imported on first use, and the tables of the parsers.
    for text in (r"$\frac{1}{2}+\sqrt{3}x$", r"$\begin{pmatrix} 1 \\ 2 \end{pmatrix}$", "the answer is 2*(3+1)."):
        parsed = math_verify.parse(text, parsing_timeout=None)
        math_verify.verify(parsed, parsed, timeout_seconds=None)


def judge(question: tuple[str, str, str]) -> bool:
    """Return whether an answer equals a reference.

    Args:
        question: ("value", reference, answer), both in LaTeX without delimiters; or ("output", solution, output), which is what lm-eval's
            minerva_math asks math-verify, to the letter but for its clocks: here the process has one.
    """
    from math_verify import parse, verify

    kind, reference, answer = question
    if kind == "value":
        alternatives = answer.split(" or ")
        agree = len(alternatives) > 1 and all(_same_value(reference, each) for each in alternatives)
        return agree or _same_value(reference, answer)
    gold, target = parse(reference, parsing_timeout=None), parse(answer, parsing_timeout=None)
    return bool(verify(gold=gold, target=target, timeout_seconds=None))


def _same_value(reference: str, answer: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    gold, target = (
        parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
        for text in (reference, answer)
    )
    if not gold or not target:
        return False
    same = verify(gold, target, allow_set_relation_comp=True, timeout_seconds=None)
    return bool(same) and not _differ_as_small_numbers(gold[0], target[0])


def _differ_as_small_numbers(gold: Any, target: Any) -> bool:
    sizes = []
    for value in (gold, target):
        if not getattr(value, "is_number", False) or not (number := value.doit().evalf()).is_finite:
            return False
        sizes.append(complex(number))
    one, other = sizes
    return max(abs(one), abs(other)) < _EXACT_BELOW and abs(one - other) > _RELATIVE * max(abs(one), abs(other))


def _no_code(*_: object, **__: object) -> None:
    raise NotImplementedError("no code is made of an answer")


def _refuse_generated_code(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "compile" and isinstance(arguments[1], str) and arguments[1].startswith("<lambdifygenerated"):
        _no_code()
