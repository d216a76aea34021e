"""Blocks of code in Markdown: those of CommonMark, as markdown-it finds them, and those that chat models write besides."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt

from harness.metrics.code_blocks import Block, fenced_blocks, loose_blocks, tagged_blocks, visible

TEXTS = (
    "Some words.",
    "- a point\n- another",
    "1. first\n2. second",
    "> a quote",
    "# A heading",
    "`x = 1` is code",
    "",
)
CODES = (
    "x = 1",
    "def f():\n    return 1\n\n\nprint(f())",
    "",
    "    indented = 1\nfor x in y:\n    pass",
    "s = '`' + \"~\"",
)


def documents(number: int) -> Iterator[str]:
    """Documents of words and fenced blocks, some in lists and quotes; the same ones every time."""
    chance = random.Random(0)
    for _ in range(number):
        parts = []
        for _ in range(chance.randint(1, 4)):
            fence = chance.choice(("```", "~~~", "````", "~~~~~"))
            block = f"{fence}{chance.choice(('python', '', ' py', 'bash', 'text'))}\n{chance.choice(CODES)}\n{fence}"
            before, first = chance.choice(
                (("", ""), ("  ", "  "), ("> ", "> "), ("   ", "1. "), ("  ", "- "), ("> > ", "> > "))
            )
            lines = [f"{before}{line}" for line in block.split("\n")]
            parts += [chance.choice(TEXTS), "\n".join([first + lines[0][len(before) :], *lines[1:]])]
        yield "\n\n".join(parts) + ("" if chance.random() < 0.7 else f"\n\n```python\n{chance.choice(CODES[:2])}")


def test_fences_of_markdown_are_found_as_markdown_it_finds_them() -> None:
    markdown = MarkdownIt("commonmark")
    found = 0
    for document in documents(300):
        theirs = [(one.content, one.info.strip()) for one in markdown.parse(document) if one.type == "fence"]
        ours = [(block.text, block.language) for block in fenced_blocks(document)]
        assert [(text.rstrip("\n"), info) for text, info in theirs] == [(t.rstrip("\n"), i) for t, i in ours], document
        found += len(ours)
    assert found > 700


@pytest.mark.parametrize(
    ("answer", "blocks"),
    [
        ("```python\nx = 1\ny =", [Block("x = 1\ny =", "python", closed=False)]),
        ("So: ```py\nx\n``` Done", [Block("x", "py")]),
        ("```python\nx```\ny", [Block("x", "python")]),
        ("```python\nx = 1 # ```\ny\n```", [Block("x = 1 # ```\ny", "python")]),
        ("        ```python\n        x\n        ```", [Block("x", "python")]),
        (
            "```markdown\n# T\n```python\nx\n```\n```",
            [Block("# T", "markdown"), Block("x", "python"), Block("", "", False)],
        ),
        ("> ```\n> x\ny\n```\nz", [Block("x"), Block("z", closed=False)]),
        ("```python\n'''\n```\n'''\n```", [Block("'''\n```\n'''", "python")]),
        ("```python\n'''\n```\n", [Block("'''", "python")]),
        ("```bash\necho '''\n```\n", [Block("echo '''", "bash")]),
        ("```python x = 1```", [Block("x = 1")]),
        ("```x = 1```", [Block("x = 1")]),
        ("use ``` to open a fence, and ```` too", []),
        ("`x`", []),
    ],
)
def test_blocks_that_chat_models_write(answer: str, blocks: list[Block]) -> None:
    assert fenced_blocks(answer) == blocks


def test_tags_hold_code_as_it_is_or_as_html() -> None:
    answer = (
        "[PYTHON]\na < b &lt; c\n[/PYTHON] <pre><code class='x'>a &lt; b</code></pre> <pre>1</pre> <code>never closed"
    )
    texts = [(block.text, block.closed) for block in tagged_blocks(answer)]
    assert texts == [("\na < b &lt; c\n", True), ("a < b", True), ("1", True), ("never closed", False)]


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("Words.\n\nimport os\n\ndef f():\n    '''\nWords.\n    '''\n    return 1\n\nWords again.", 1),
        ("Words.\nx = 1\nWords.\ny = 2", 2),
        ("Import the module and define the thing. For each of them:\n\nreturn to this later.", 0),
        ("def f(a):\n  return a\n\nfor example, f(1) is 1", 1),
        ("return 1", 0),
    ],
)
def test_lines_that_look_like_python_are_told_from_words(answer: str, texts: int) -> None:
    assert len(loose_blocks(answer)) == texts


def test_what_cannot_be_seen_is_repaired_outside_of_strings_and_comments() -> None:
    code = "\ufeffx\u00a0=\u200b 'a\u00a0\u200b' # \u00a0\n'''\u200b\n''' +\u202f\"\\\"\u00a0\"\n"
    assert visible(code) == "x = 'a\u00a0\u200b' # \u00a0\n'''\u200b\n''' + \"\\\"\u00a0\"\n"
    assert visible("x = “1”") == "x = “1”"
