"""Programs judged by assertions about their functions, as MBPP's are."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from harness.metrics.code import CodeFormat
from harness.sandbox import Program


def program(doc: Mapping[str, Any], completion: str) -> Program:
    """Return the program of an MBPP problem and a completion, and its assertions.

    Where the tests build objects of the solution's own classes (`test_setup_code`), they cannot call from another process: they run
    in the program's, which then judges itself.
    """
    tests = "\n".join(doc["test_list"])
    if setup := doc["test_setup_code"]:
        return Program(source=f"{completion}\n{setup}\n{tests}\n")
    return Program(source=f"{completion}\n", tests=tests, functions=tested_functions(doc))


def tested_functions(doc: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the functions of the reference solution that the tests name."""
    named = set(_named_by_tests(doc))
    return tuple(
        node.name for node in ast.parse(doc["code"]).body if isinstance(node, ast.FunctionDef) and node.name in named
    )


def _named_by_tests(doc: Mapping[str, Any]) -> list[str]:
    tests = "\n".join([doc["test_setup_code"], *doc["test_list"]])
    return [node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)]


FORMAT = CodeFormat(program=program, functions=tested_functions, also=_named_by_tests, prompt=lambda _: "")
