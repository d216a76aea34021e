"""Answers of chat models to a function that is asked for: each form is read, and what was read is really run.

The forms that fit any function are in helpers/code_forms.py, and the gold answers of all tasks are put into them too
(tests/harness/tasks/test_gold_in_chat.py); here stand those that say something of one function's own text.
"""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest

from harness.metrics.assertions import FORMAT as MBPP
from harness.metrics.code import CodeFormat, score_completions
from harness.metrics.code_answers import MOST_READ, read_code
from harness.sandbox import run_programs
from helpers.code_forms import FORMS, fenced

PROMPT = '''from typing import List


def shares(parts: List[int], digits: int) -> List[float]:
    """Say what share of the whole each part is.

    >>> shares([1, 3], 2)
    [0.25, 0.75]
    """
'''
BODY = """    whole = sum(parts)
    if not whole:
        return [0.0 for _ in parts]
    return [round(part / whole, digits) for part in parts]
"""
DOC = {
    "prompt": PROMPT,
    "entry_point": "shares",
    "test": "def check(candidate):\n    assert candidate([1, 3], 2) == [0.25, 0.75]\n    assert candidate([0], 1) == [0.0]\n",
}
BARE = f"def shares(parts, digits):\n{BODY}"
WRONG = "def shares(parts, digits):\n    return [0.5 for _ in parts]\n"
LAMBDA = "[round(part / (sum(parts) or 1), digits) for part in parts]"
METHOD = "class Solution:\n" + textwrap.indent(BARE.replace("shares(parts", "shares(self, parts"), "    ")
HELPED = "def shares(parts, digits):\n    return [rounded(part / (total(parts) or 1), digits) for part in parts]\n"
TOTAL = "def total(parts):\n    return sum(parts, START)\n"
FENCE = "```"

RIGHT = {
    "the body as it continues the prompt": BODY,
    "the body in a block": f"```python\n{BODY}```",
    "the body, dedented": fenced(textwrap.dedent(BODY)),
    "the body, dedented and without a fence": textwrap.dedent(BODY),
    "the body, indented too far": f"```python\n{textwrap.indent(BODY, '    ')}```",
    "the body, stripped": f"```python\n{BODY.strip()}\n```",
    "the body, stripped, a statement with a body of its own first": fenced(
        "if not sum(parts):\n        return [0.0 for _ in parts]\n    return [round(part / sum(parts), digits) for part in parts]"
    ),
    "the body, stripped and without a fence": BODY.strip(),
    "the body between words": f"Complete it so:\n\n{BODY}\nThat is all.",
    "the body in a list": f"1. Complete it:\n\n{textwrap.indent(fenced(BODY), '   ')}",
    "the body after a block of bash": f"```bash\nls\n```\n\n{fenced(BODY)}",
    "the body before an example of use": f"{fenced(BODY)}\n\n```python\nprint(shares([1], 1))\n```",
    "the body after reasoning": f"<think>return 0</think>\n{BODY}",
    "the body with no-break spaces": fenced(BODY.replace("    ", "\u00a0" * 4)),
    "the function without what the prompt imports": fenced(PROMPT.partition("\n\n\n")[2] + BODY),
    "the function with another signature": fenced(BARE.replace("parts, digits", "parts, digits=2, *, more=None")),
    "an annotation that needs the prompt's import": fenced(BARE.replace("parts, ", "parts: List[int], ")),
    "a method of Solution": fenced(METHOD),
    "a method of another class": fenced(METHOD.replace("Solution", "Shares(object)")),
    "a static method": fenced(METHOD.replace("    def", "    @staticmethod\n    def").replace("self, ", "")),
    "a method without a fence": f"Like this:\n\n{METHOD}\n\nDone.",
    "a method, and its use": fenced(METHOD + "\nsolution = Solution()\nprint(solution.shares([1], 1, 2, 3))\n"),
    "a class with help": fenced(
        "from typing import Any\n\n\nclass Base:\n    pass\n\n\n" + METHOD.replace("Solution", "S(Base)")
    ),
    "a lambda": fenced(f"shares = lambda parts, digits: {LAMBDA}"),
    "a lambda with an annotation": fenced(f"shares: object = lambda parts, digits: {LAMBDA}"),
    "another name for it": fenced(BARE.replace("def shares", "def solve") + "\nshares = solve"),
    "a partial": fenced(
        "import functools\n" + BARE.replace("def shares(", "def s(x, ") + "\nshares = functools.partial(s, 0)"
    ),
    "a decorator": fenced(f"import functools\n\n\n@functools.wraps(print)\n{BARE}"),
    "a cache around it": fenced(
        "from functools import lru_cache\n\n" + BARE + "\ncached = lru_cache(None)(lambda *a: shares(*a))\n"
    ),
    "behind a guard": fenced("if __name__ == '__main__':\n" + textwrap.indent(BARE, "    ")),
    "in a try": fenced("try:\n    import numpy\nexcept ImportError:\n" + textwrap.indent(BARE, "    ")),
    "tabs": fenced(BARE.replace("    ", "\t")),
    "on one line": f"{FENCE}python def shares(parts, digits): return {LAMBDA}{FENCE}",
    "a helper in a block before": f"First:\n\n{fenced('START = 0')}\n\n{fenced(TOTAL)}\n\nThen:\n\n"
    + fenced(HELPED.replace("rounded", "round")),
    "helpers around it": f"{fenced(HELPED)}\n\nwhere\n\n{fenced(TOTAL)}\n\n{fenced('START = 0' + chr(10) + 'rounded = round')}",
    "a helper of the same block": fenced(f"rounded = round\nSTART = 0\n\n\n{TOTAL}\n\n{HELPED}"),
    "helpers after it in its block": fenced(f"{HELPED}\n\n{TOTAL}\n\nrounded, START = round, 0\nprint(1 / 0)"),
    "a helper that was corrected": f"{fenced(TOTAL.replace('sum(', 'len('))}\n\nNo:\n\n{fenced('START = 0' + chr(10) + TOTAL)}\n\n"
    + fenced(HELPED.replace("rounded", "round")),
    "a helper without a fence": f"First\n\n{TOTAL}\n\nThen\n\nSTART = 0\n\nAnd\n\n{HELPED.replace('rounded', 'round')}\n\nDone.",
    "a setting after it": fenced(f"import sys\n\n{BARE}\n\nsys.setrecursionlimit(5000)\nprint(undefined)"),
    "variables of its parameters' names after it": fenced(
        f"{BARE}\nparts = list(map(int, input().split()))\ndigits = int(input())\nprint(shares(parts, digits))"
    ),
    "an attribute of it, set after it": fenced(
        BARE.replace("digits):\n", "digits):\n    shares.calls += 1\n") + "\nshares.calls = 0\nprint(undefined)"
    ),
    "a table filled after it": fenced(
        f"ROUND = {{}}\n\n\n{BARE.replace('round(', 'ROUND[0](')}\nfor key in [0]:\n    ROUND[key] = round\nprint(undefined)"
    ),
    "a list filled by its method after it": fenced(
        f"ROUND = []\n\n\n{BARE.replace('round(', 'ROUND[0](')}\nROUND.append(round)\nprint(undefined)"
    ),
    "a global variable of it, set after it": fenced(
        BARE.replace("digits):\n", "digits):\n    global calls\n    calls += 1\n") + "\ncalls = 0\nprint(undefined)"
    ),
    "its head explained after it": f"{fenced(BARE)}\n\nThe head:\n{fenced('def shares(parts, digits):  # two')}\nThat is it.",
    "its head over several lines after it": f"{fenced(BARE)}\n\n{fenced('def shares(' + chr(10) + '    parts,' + chr(10) + '    digits,' + chr(10) + '):')}",
    "its first lines explained after it": f"{fenced(BARE)}\n\nThe sum:\n\n{fenced(chr(10).join(BARE.split(chr(10))[:2]))}",
    "its first lines again, where the answer is cut": f"{fenced(BARE)}\n\nWith comments:\n{FENCE}python\n"
    + BARE[: BARE.index("    return [round")].replace("    whole", "    # the sum\n    whole"),
    "its head and its body in two blocks": f"{fenced('def shares(parts, digits):')}\n\nwith\n\n{fenced(BODY)}",
    "a fence in its docstring": fenced(
        BARE.replace("digits):\n", f'digits):\n    """\n    {FENCE}\n    x\n    {FENCE}\n    """\n')
    ),
    "a fence in its docstring, not indented": fenced(
        BARE.replace("digits):\n", f"digits):\n    '''Shares.\n\n{FENCE}python\nshares([1])\n{FENCE}\n    '''\n")
    ),
    "a fence in the module's docstring": fenced(f'"""\n{FENCE}\nx\n{FENCE}\n"""\n{BARE}'),
    "an apostrophe in a comment": fenced(f"# it's '''right'''\n{BARE}"),
    "a quote that is no string, in a block before": f"{FENCE}\nIt's '''open\n{FENCE}\n\n{fenced(BARE)}\n",
    "an interpreter's session": fenced(
        "\n".join(f"{'...' if number else '>>>'} {line}" for number, line in enumerate(BARE.rstrip("\n").split("\n")))
        + "\n>>> shares([1, 3], 2)\n[0.25, 0.75]"
    ),
    "strings with no-break spaces stay": fenced(
        BARE.replace("digits):\n", 'digits):\n    assert len("\u00a0\u200b") == 2 and "\u00a0" != " "\n')
    ),
    "from __future__ after a docstring": fenced(f'"""Shares."""\n\nfrom __future__ import annotations\n\n{BARE}'),
    "from __future__ in brackets": fenced(f"from __future__ import (\n    annotations,\n)\n\n{BARE}"),
    "a draft with the right code cut off in the next": f"{fenced(BARE)}\n\nOnce more:\n```python\ndef shares(parts, digits):\n    whole = (",
    "a fence of markdown around it": f"```markdown\n# Title\n{fenced(BARE)}\n```",
    "two right versions": f"{fenced(BARE)}\n\nOr shorter:\n\n{fenced('shares = lambda parts, digits: ' + LAMBDA)}",
    "a wrong one marked as wrong, before": f"Do not write\n\n{fenced(WRONG)}\n\nbut\n\n{fenced(BARE)}",
    "a heading between": f"### 1. Helper\n{fenced(TOTAL)}\n### 2. Function\n{fenced(BARE)}\n### 3. Notes\n- `shares` is linear.",
}

NOT_RIGHT = {
    "a wrong function": fenced(WRONG),
    "another name": fenced(BARE.replace("shares", "portions")),
    "another method's name": fenced(METHOD.replace("shares", "getShares")),
    "right in a string": fenced(f'text = """\n{BARE}"""\n'),
    "right in comments": fenced(textwrap.indent(BARE, "# ")),
    "right, then corrected to what is wrong": f"{fenced(BARE)}\n\nOn second thought:\n\n{fenced(WRONG)}",
    "right only in what it warns of": f"This is wrong:\n\n{fenced(BARE)}\n\nThe right way:\n\n{fenced(WRONG)}",
    "right only in reasoning": f"<think>\n{fenced(BARE)}\n</think>\n\n{fenced(WRONG)}",
    "right only in reasoning that never ends": f"<think>\nMaybe\n{fenced(BARE)}\nBut wait",
    "right, then a last version that is no Python": f"{fenced(BARE)}\n\nFinally:\n\n{fenced('def shares(parts, digits)' + chr(10) + BODY)}",
    "right, then a shorter last version": f"{fenced(BARE)}\n\n{fenced('def shares(parts, digits):' + chr(10) + '    return []')}",
    "right within another function": fenced("def outer():\n" + textwrap.indent(BARE, "    ")),
    "a coroutine": fenced(f"async {BARE}"),
    "a stub": fenced(PROMPT + "    pass\n"),
    "the prompt again": fenced(PROMPT),
    "a refusal": "I am sorry, but I cannot write `shares` for you.",
    "a description": "Sum the parts, then return each part divided by that sum, rounded.",
    "an example of use alone": fenced("from solution import shares\nprint(shares([1, 3], 2))"),
    "the expected values alone": "```\n[0.25, 0.75]\n```",
    "another language": "```javascript\nfunction shares(parts, digits) { return parts; }\n```",
    "an end before it": fenced(f"raise SystemExit(0)\n\n\n{BARE}"),
    "a check that it passes": fenced("def check(candidate):\n    pass\n"),
    "quotation marks of a word processor": fenced(BARE.replace("digits):\n", "digits):\n    “Shares”\n")),
    "indentation that does not fit": fenced(BARE.replace("    return [round", "   return [round")),
    "a body that is cut": f"```python\n{BARE[: BARE.index('[round')]}",
    "a helper that is nowhere": fenced(HELPED),
}


def outcomes(answers: dict[str, str]) -> dict[str, str]:
    """How each answer ends; what many have in common runs once."""
    form = CodeFormat()
    read = {name: form.read(DOC, answer, ()) for name, answer in answers.items()}
    programs = {whole.source: whole for _, whole in read.values()}
    ended = dict(zip(programs, run_programs(list(programs.values())), strict=True))
    return {name: ended[whole.source].outcome if code.strip() else "invalid" for name, (code, whole) in read.items()}


def test_a_right_function_passes_in_every_form() -> None:
    answers = {name: form(PROMPT + BODY, "shares") for name, form in FORMS.items()} | RIGHT
    assert len(answers) == len(FORMS) + len(RIGHT) >= 120
    assert {name: how for name, how in outcomes(answers).items() if how != "passed"} == {}


def test_what_is_not_right_passes_in_no_form() -> None:
    answers = {f"wrong: {name}": form(WRONG, "shares") for name, form in FORMS.items()} | NOT_RIGHT
    assert [name for name, how in outcomes(answers).items() if how == "passed"] == []


def test_an_answer_without_code_is_invalid_and_not_run() -> None:
    answers = ["", "\n \n", f"<think>\n{BODY}", "\u200b"]
    scores = score_completions([DOC] * 4, answers, (), lambda: None)
    assert [score.outcome for score in scores] == ["invalid"] * 4


def test_a_completion_that_ends_at_a_stop_is_read_as_before_to_the_letter() -> None:
    form = CodeFormat()
    for answer in [BODY, fenced(BODY), f"from __future__ import annotations\n{BARE}", "    return\u00a01\n", METHOD]:
        code, whole = form.read(DOC, answer, ("\n#",))
        assert code == answer
        assert whole.source == PROMPT + ("\n" if answer.endswith(BARE) else "") + answer + "\n"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\nx = 1\ndef f(): return x\nprint(x)\n```", "x = 1\ndef f(): return x"),
        (
            "```python\nimport os\ndef g(): pass\n```\n```python\ndef f(): return os\n```",
            "import os\ndef f(): return os",
        ),
        ("```python\nclass A:\n  def f(self): return 1\n```", "class A:\n  def f(self): return 1\nf = A().f"),
        ("```\nnothing\n```", "nothing"),
        ("nothing", "nothing"),
        ("```python\nz = 1\n```\n```bash\nls\n```", "z = 1"),
    ],
)
def test_what_is_read_where_whole_functions_are_asked_for(answer: str, code: str) -> None:
    assert read_code(answer, ["f"]) == code


def test_the_block_with_most_of_the_functions_that_assertions_call_is_read() -> None:
    doc = {"code": "def f(): ...\ndef g(): ...", "test_list": ["assert f() == g()"], "test_setup_code": ""}
    both, one = "def f(): return 1\ndef g(): return 1", "def f(): return 2"
    assert MBPP.completion(doc, f"{fenced(both)}\n{fenced(one)}") == both


HOSTILE = {
    "fences": "```\n" * 2_000_000,
    "openings": "```python\n" * 1_000_000,
    "fences in strings": "```python\n'''\n```\n" * 500_000,
    "backticks": "`" * 10_000_000,
    "quotes": ">" * 10_000_000 + "```",
    "lines of quotes": (">" * 3000 + "```python\n") * 3000,
    "indentation": " " * 10_000_000 + "```",
    "numbers of lists": "1. " * 3_000_000 + "```",
    "tags": "<pre><code>" * 900_000,
    "open tags": "<pre " * 2_000_000,
    "[PYTHON]": "[PYTHON]" * 1_000_000,
    "braces": "```python\n" + "{" * 10_000_000,
    "functions": "def shares(): pass\n" * 500_000,
    "blocks of functions": "```\ndef shares(x): return x\n```\n" * 300_000,
    "triple quotes": "def shares():\n" + '    """\n' * 1_000_000,
    "quotation marks": "def shares():\n    " + "\"'" * 5_000_000 + "\u00a0",
    "no-break spaces": "\u00a0" * 5_000_000,
    "dotted imports": "```\nimport " + "a." * 9_000 + "a\ndef shares(): pass\n```\n",
    "many names": "```\n" + "".join(f"a{n} = a{n + 1}\n" for n in range(1500)) + "def shares(): return a0\n```\n",
    "deep nesting": "```\ndef shares(): return " + "(" * 9_000 + "\n```",
    "minus": "```\ndef shares(): return " + "-" * 19_000 + "1\n```",
    "null bytes and half pairs": "```\ndef shares(x):\0\ud800\n```",
    "thinking": "<think>" * 1_000_000 + "</think>" * 100_000,
    "equals": "a=" * 5_000_000,
    "assignments to dots": "a." * 5_000_000,
    "brackets": "x[" * 3_000_000,
    "__import__": "```python\n__import__('os').system('touch /tmp/harness-was-here')\n```",
}


FAST = ("fences in strings", "backticks", "quotes", "tags", "deep nesting", "null bytes and half pairs", "__import__")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in HOSTILE]
)
def test_hostile_answers_neither_hang_nor_run_nor_break_the_reading(name: str) -> None:
    before = time.process_time()
    for prompt in (PROMPT, ""):
        code = read_code(HOSTILE[name], ["shares"], prompt=prompt)
        assert len(code) <= 6 * MOST_READ
    assert time.process_time() - before < 20.0
    assert not Path("/tmp/harness-was-here").exists()
