"""Code in a chat model's answer."""

import pytest

from harness import tasks
from harness.metrics.code import defines, fenced_code


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("Here:\n```python\nx = 1\n```\nThat is it.", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("~~~py\nx = '```'\n~~~", "x = '```'\n"),
        ("````md\n```\nx\n```\n````", "```\nx\n```\n"),
        ("```python\nx = 1\n```\nor\n```python\nx = 2\n```", "x = 1\n"),
        ("```python\nx = 1\ny =", "x = 1\ny ="),  # cut by a limit
        ("    return 1\n", "    return 1\n"),
        ("call it with `x = 1`", "call it with `x = 1`"),
        ("", ""),
    ],
)
def test_the_first_fenced_block_or_the_whole_answer(answer: str, code: str) -> None:
    assert fenced_code(answer) == code


def test_a_function_is_found_at_the_top_level_alone() -> None:
    assert defines("import os\ndef f(x):\n    return x", "f")
    assert defines("async  def f (x): ...", "f")
    assert not defines("    def f(x): ...", "f")
    assert not defines("def ff(x): ...", "f")
    assert not defines("print('def f(')", "f")


def test_a_whole_function_and_a_body_alone_both_pass_where_a_model_is_asked_by_instructions() -> None:
    task = tasks.load("small_code").as_chat()
    doc = task.docs(1)[0]
    whole = f"Sure!\n```python\n{doc['prompt']}{doc['canonical_solution']}```\nclass of its own"
    wrong = f"```python\ndef {doc['entry_point']}(*_):\n    return None\n```"
    scores = task.score_many([doc] * 3, [whole, task.reference(doc), wrong], allow_code_execution=True)
    assert [score.scores["pass@1"] for score in scores] == [100.0, 100.0, 0.0]
