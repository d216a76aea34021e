"""Programs judged by assertions about their functions, as MBPP's are."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from harness.sandbox import Program


def program(doc: Mapping[str, Any], completion: str) -> Program:
    """Return the program of an MBPP problem and a completion, and its assertions.

    Where the tests build objects of the solution's own classes (`test_setup_code`), they cannot call from another process: they run
    in the program's, which then judges itself.
    """
    tests = "\n".join(doc["test_list"])
    if setup := doc["test_setup_code"]:
        return Program(source=f"{completion}\n{setup}\n{tests}\n")
    return Program(source=f"{completion}\n", tests=tests, functions=_tested_functions(doc["code"], tests))


def _tested_functions(reference: str, tests: str) -> tuple[str, ...]:
    """Return the functions of the reference solution that the tests name."""
    named = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    return tuple(
        node.name for node in ast.parse(reference).body if isinstance(node, ast.FunctionDef) and node.name in named
    )
