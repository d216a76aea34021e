"""Forms in which chat models return a function: each makes an answer of a whole function's text and its name.

`FORMS` grows: what was once read wrong comes here. A right function scores 100 in each of them.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable

Form = Callable[[str, str], str]


def fenced(code: str, info: str = "python", fence: str = "```") -> str:
    """A block of Markdown."""
    return f"{fence}{info}\n{code.strip(chr(10))}\n{fence}"


def _within(before: str) -> Form:
    """A block every line of which stands after the same text, as in a quote."""
    return lambda code, name: "Here:\n\n" + textwrap.indent(fenced(code), before, lambda line: True) + "\n\nDone."


def _listed(marker: str) -> Form:
    """A block in a list, indented as far as the list's text."""
    return lambda code, name: (
        f"{marker} Write it:\n\n{textwrap.indent(fenced(code), ' ' * (len(marker) + 1))}\n\n{marker} Run it."
    )


def _after(first: str) -> Form:
    return lambda code, name: f"{first.format(name=name)}\n\n{fenced(code)}\n\nThat is all."


def _before(last: str) -> Form:
    return lambda code, name: f"Here it is:\n\n{fenced(code)}\n\n{last.format(name=name)}"


def _and_then(more: str) -> Form:
    """More code in the same block."""
    return lambda code, name: "Sure!\n\n" + fenced(code.rstrip("\n") + "\n\n" + more.format(name=name))


WRONG = fenced("def {name}(*values):\n    return 'wrong'")

FORMS: dict[str, Form] = {
    "a block of Python": lambda code, name: f"Sure! Here is the function:\n\n{fenced(code)}\n\nIt passes its tests.",
    "a block that names no language": lambda code, name: fenced(code, ""),
    "py": lambda code, name: fenced(code, "py"),
    "python3": lambda code, name: fenced(code, "python3"),
    "a capital": lambda code, name: fenced(code, "Python"),
    "a space before the language": lambda code, name: fenced(code, " python"),
    "attributes": lambda code, name: fenced(code, "{.python .numberLines}"),
    "a file's name": lambda code, name: fenced(code, 'python title="solution.py"'),
    "tildes": lambda code, name: fenced(code, "python", "~~~"),
    "four backticks": lambda code, name: fenced(code, "python", "````"),
    "no line end after the fence": lambda code, name: f"Here:\n{fenced(code)}".rstrip(),
    "a block that is never closed": lambda code, name: f"Here:\n```python\n{code}",
    "a fence at the end of the last line": lambda code, name: f"```python\n{code.rstrip()}```\nDone.",
    "a fence at the end of a sentence": lambda code, name: f"The solution: ```python\n{code}\n```\nDone.",
    "words after the closing fence": lambda code, name: f"```python\n{code}\n``` This works because it does.",
    "a second opening where the closing fence is": lambda code, name: f"```python\n{code}\n```python\nprint(1)\n```",
    "bash first": _after("```bash\npip install nothing\n```"),
    "a prompt first": _after("```console\n$ python solution.py\n42\n```"),
    "its output first": _after("The output will be:\n```\n[1, 2, 3]\nNone\n```"),
    "an empty block first": _after("```python\n```"),
    "a block of JSON first": _after('```json\n{{"name": "{name}"}}\n```'),
    "an example of use first": _after("You will call it so:\n```python\nresult = {name}()\nprint(result)\n```"),
    "a stub first": _after("The signature:\n```python\ndef {name}(*values):\n    ...\n```"),
    "a stub afterwards": _before("In short:\n```python\ndef {name}(*values):\n    pass\n```"),
    "pseudocode afterwards": _before(
        "As pseudocode:\n```text\ndef {name}(values):\n    for each value do the thing\n```"
    ),
    "an example of use afterwards": _before("```python\nfrom solution import {name}\n\nassert {name}() == 'x'\n```"),
    "another language afterwards": _before("```javascript\nfunction {name}() {{ return 1; }}\n```"),
    "its output afterwards": _before("Output:\n```\n{name}: 1\n```"),
    "inline code": lambda code, name: f"`{name}` is ``done``, see `x = 1`:\n\n{fenced(code)}\n\nCall `{name}()`.",
    "a draft that is corrected": _after(f"First I thought of this:\n\n{WRONG}\n\nBut that is wrong. Corrected:"),
    "a draft in reasoning": _after(f"<think>\nMaybe so:\n\n{WRONG}\n\nNo.\n</think>\n\nThe answer:"),
    "reasoning that the prompt opened": _after(f"Maybe:\n{WRONG}\n</think>\n"),
    "a draft in another model's reasoning": _after(f"[THINK]{WRONG}[/THINK]"),
    "prints afterwards": _and_then("print({name}())\nraise SystemExit(1)"),
    "assertions that fail": _and_then("assert {name}() == 'something else'"),
    "input": _and_then("numbers = input('Numbers: ')\nprint({name}(numbers))"),
    "a guarded main": _and_then("if __name__ == '__main__':\n    print({name}(input()))"),
    "a main function": _and_then("def main():\n    print({name}(input()))\n\n\nmain()"),
    "tests of its own": _and_then(
        "import unittest\n\n\nclass Tests(unittest.TestCase):\n    pass\n\n\nunittest.main()"
    ),
    "use that a limit cut": lambda code, name: f"```python\n{code}\n\nprint({name}([1, 2,",
    "a string that a limit cut": lambda code, name: f"```python\n{code}\n\ntext = '''Use it so:\n    {name}(",
    "from __future__": lambda code, name: fenced(f"from __future__ import annotations\n{code}"),
    "a comment first": lambda code, name: fenced(f"# solution.py\n{code}"),
    "imports in a block before": lambda code, name: f"{fenced('import math')}\n\nThen:\n\n{fenced(code)}",
    "indented within its fence": lambda code, name: fenced(textwrap.indent(code, "    ")),
    "a numbered list": _listed("1."),
    "a long number": _listed("10."),
    "a list of dashes": _listed("-"),
    "a list in a list": lambda code, name: f"- First\n  - Then\n\n{textwrap.indent(fenced(code), ' ' * 6)}\n\n- Done",
    "a fence after the mark of a list": lambda code, name: "- " + textwrap.indent(fenced(code), "  ")[2:],
    "a quote": _within("> "),
    "a quote without spaces": _within(">"),
    "a quote in a quote": _within("> > "),
    "indented by four": _within("    "),
    "indented by a tab": _within("\t"),
    "a heading": lambda code, name: f"## Step 1\n\n### Code\n{fenced(code)}\n## Step 2\n1. Done.",
    "no fence": lambda code, name: f"Sure, here is the function.\n\n{code}\n\nIt returns what was asked for.",
    "no fence, and use": lambda code, name: f"Here it is:\n\n{code}\n\nFor example:\n\nprint({name}())\n\nThat is it.",
    "nothing but code": lambda code, name: code,
    "bash in a block, the function in none": lambda code, name: f"```bash\npython x.py\n```\n\n{code}\n",
    "Markdown's indented code": lambda code, name: f"Here:\n\n{textwrap.indent(code, '    ')}\n\nThat is it.",
    "a quote without a fence": lambda code, name: textwrap.indent(code, "> ", lambda line: True),
    "[PYTHON]": lambda code, name: f"[PYTHON]\n{code}\n[/PYTHON]",
    "HTML": lambda code, name: f'<pre><code class="language-python">{html.escape(code)}</code></pre>',
    "HTML without a language": lambda code, name: f"<code>\n{html.escape(code)}\n</code>",
    "a byte order mark": lambda code, name: "\ufeff" + fenced(code),
    "a byte order mark in the block": lambda code, name: f"```python\n\ufeff{code}\n```",
    "a zero-width space before the fence": lambda code, name: f"\u200b{fenced(code)}",
    "zero-width spaces": lambda code, name: fenced(code.replace("def ", "\u200bdef\u200b ")),
    "no-break spaces": lambda code, name: fenced(code.replace("    ", "\u00a0 \u00a0 ")),
    "narrow no-break spaces": lambda code, name: fenced(code.replace("return ", "return\u202f")),
    "carriage returns": lambda code, name: f"Here:\n\n{fenced(code)}\n\nDone.\n".replace("\n", "\r\n"),
}
