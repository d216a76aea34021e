"""Figures of the code: lines, the longest functions, the largest classes. `python tests/helpers/code_size.py`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def measure(root: Path) -> tuple[int, list[tuple[int, str]], list[tuple[int, str]]]:
    """(lines of dskd and harness, functions and classes by length, the longest first)."""
    lines, functions, classes = 0, [], []
    for path in sorted(path for package in ("dskd", "harness") for path in (root / package).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines += text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                sizes = classes if isinstance(node, ast.ClassDef) else functions
                sizes.append((length, f"{path.relative_to(root)}:{node.lineno} {node.name}"))
    return lines, sorted(functions, reverse=True), sorted(classes, reverse=True)


if __name__ == "__main__":
    total, longest, largest = measure(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
    print(f"{total:,} lines")
    for title, sizes in (("functions", longest), ("classes", largest)):
        print(title, *(f"  {length:4} {name}" for length, name in sizes[:12]), sep="\n")
