"""What a piece of Python defines and needs, read from its syntax tree; nothing of it is run."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

# A function is shorter by far. CPython's parser takes quadratic time on some texts ("import a.a.a…"): this many take 0.4 s.
MOST_PARSED = 20_000
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_DOCTEST = re.compile(r"^[ \t]*(?:>>>|\.\.\.)(?: |$)")
_FUTURE = re.compile(r"^from[ \t]+__future__[ \t]+import[ \t]+(?:\([^()]*\)|[^\n(]*)$\n?", re.MULTILINE)


@dataclass(frozen=True)
class Piece:
    """Python code; `tree` is None where it does not parse."""

    code: str
    tree: ast.Module | None

    @cached_property
    def lines(self) -> list[str]:
        return self.code.split("\n")

    @cached_property
    def bound(self) -> dict[str, list[ast.stmt]]:
        """The statements at the top level that give a name its value, by the name."""
        bound: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body if self.tree else ():
            for name in binds(statement):
                bound.setdefault(name, []).append(statement)
        return bound

    @cached_property
    def changed(self) -> dict[str, list[ast.stmt]]:
        """The statements at the top level that change what a name stands for, by the name: `f.calls = 0`, `KNOWN.add(1)`."""
        changed: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body if self.tree else ():
            for name, by_call in _changes(statement):
                fixed = (*_DEFINITIONS, *_IMPORTS) if by_call else _IMPORTS
                if not any(isinstance(one, fixed) for one in self.bound.get(name, ())):
                    changed.setdefault(name, []).append(statement)
        return changed

    def defines(self, name: str) -> bool:
        """Whether it has a function of this name with a body: by `def`, by an assignment, as a method, or behind a `__name__` guard.

        An import of it is none, as in a block that shows how to use it. What does not parse is searched for its `def`, which is
        none either where it is all head, as in a block that explains the parameters.
        """
        if self.tree is not None:
            return any(_gives(statement, name) for statement in self.tree.body)
        if not defined_in_text(self.code, name):
            return False
        filled = parsed(f"{self.code.rstrip()}\n{' ' * 80}pass")  # further in than any head's own lines
        return filled is None or any(_gives(statement, name) for statement in filled.body)

    def body_lines(self, name: str) -> list[str]:
        """Return the lines of a function's body, written in one way, without docstring and comments; none where there is none."""
        function = next((one for one in ast.walk(self.tree) if _is_function(one, name)), None) if self.tree else None
        if not isinstance(function, _FUNCTIONS):
            return []
        body = [one for one in function.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
        try:
            return ast.unparse(body).split("\n") if body else []  # type: ignore[arg-type]
        except RecursionError:  # deep nesting
            return []

    def up_to_needed(self, names: Iterable[str]) -> str:
        """Return the code up to the last statement at the top level that the names need; what follows only uses them."""
        if self.tree is None:
            return self.code
        needed = self.needed(names)
        modules = {name for statement in self.tree.body if isinstance(statement, _IMPORTS) for name in binds(statement)}
        kept = [one.end_lineno or 0 for one in self.tree.body if one in needed or _sets(one, modules)]
        return "\n".join(self.lines[: max(kept, default=len(self.lines))])

    def needed(self, names: Iterable[str]) -> set[ast.stmt]:
        """Return the statements at the top level that the names need, and those need in turn."""
        found: set[ast.stmt] = set()
        waiting, seen = list(names), set()
        while waiting:
            if (name := waiting.pop()) in seen:
                continue
            seen.add(name)
            for statement in (*self.bound.get(name, ()), *self.changed.get(name, ())):
                if statement not in found:
                    found.add(statement)
                    waiting += _needs(statement)
        return found

    def text_of(self, statement: ast.stmt) -> str:
        """Return a statement as it is written, decorators included."""
        first = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])
        return "\n".join(self.lines[first - 1 : statement.end_lineno])


def piece_of(text: str, name: str | None = None) -> Piece:
    """Read a text as Python: as it is, or without common indentation.

    Where that fails and it defines `name`, it is read up to the statement at the top level that is broken, if that leaves the
    definition: an example of use may be cut by a limit. Or else as the input of an interpreter's session.
    """
    for written in (text, textwrap.dedent(text)):
        if (tree := parsed(written)) is not None:
            return Piece(written, tree)
    if name is not None:
        for piece in (_before_broken(textwrap.dedent(text)), _session(text)):
            if piece.tree is not None and piece.defines(name):
                return piece
    return Piece(text, None)


def parsed(code: str) -> ast.Module | None:
    """Return the syntax tree; None where it is no Python, or longer than what is parsed."""
    return _parsed(code)[0]


def _parsed(code: str) -> tuple[ast.Module | None, int]:
    """Return the tree, or else the line where it breaks (from 1; 0 where that is not known)."""
    if len(code) > MOST_PARSED:
        return None, 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape in a string
            return ast.parse(code), 0
    except SyntaxError as error:
        return None, error.lineno or 0
    except (ValueError, MemoryError, RecursionError, OverflowError):  # null bytes, lone surrogates, deep nesting
        return None, 0


def _before_broken(code: str) -> Piece:
    _, broken = _parsed(code)
    lines = code.split("\n")
    starts = [number for number, line in enumerate(lines[:broken]) if re.match(r"[^\s)\]}]", line)]
    shorter = "\n".join(lines[: starts[-1]]) if starts else ""
    return Piece(shorter, parsed(shorter))


def _session(text: str) -> Piece:
    """The input of an interpreter's session, without its prompts and output."""
    lines = (line for line in textwrap.dedent(text).split("\n") if _DOCTEST.match(line))
    code = "\n".join(_DOCTEST.sub("", line, count=1) for line in lines)
    return Piece(code, parsed(code))


def defined_in_text(code: str, name: str) -> bool:
    """Whether the code has a function of this name at its top level, by its lines."""
    return re.search(rf"^(?:async[ \t]+)?def[ \t]+{re.escape(name)}[ \t]*\(", code, re.MULTILINE) is not None


def binds(statement: ast.stmt) -> set[str]:
    """Return the names that a statement at the top level gives a value."""
    if isinstance(statement, _DEFINITIONS):
        return {statement.name}
    names: set[str] = set()
    for node in _outside_definitions(statement):
        if isinstance(node, _DEFINITIONS):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
    return names


def used(node: ast.AST) -> set[str]:
    """Return the names that a statement speaks of."""
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _needs(statement: ast.stmt) -> set[str]:
    """Return the names that a statement at the top level needs: all that it uses, but for a function's own variables."""
    if not isinstance(statement, _DEFINITIONS):
        return used(statement)
    shared = {name for one in ast.walk(statement) if isinstance(one, ast.Global) for name in one.names}
    return used(statement) - (own_names(statement) - shared)


def _changes(statement: ast.stmt) -> Iterator[tuple[str, bool]]:
    """The names whose objects a statement changes: by an attribute, by an item, or by calling a method (then True)."""
    for node in _outside_definitions(statement):
        called = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
        owner = called or node
        if isinstance(owner, (ast.Attribute, ast.Subscript)) and (called or isinstance(owner.ctx, ast.Store)):
            while isinstance(owner, (ast.Attribute, ast.Subscript)):
                owner = owner.value
            if isinstance(owner, ast.Name):
                yield owner.id, called is not None


def own_names(tree: ast.AST) -> set[str]:
    """Return all names that are given a value anywhere within: variables, parameters, functions, imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, _DEFINITIONS):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def returns_outside_functions(tree: ast.Module) -> bool:
    """Whether it returns or yields without being in a function: it is the body of one."""
    return any(isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) for node in _outside_definitions(tree))


def is_main_guard(statement: ast.stmt) -> bool:
    """Whether it is `if __name__ == …:`."""
    test = statement.test if isinstance(statement, ast.If) else None
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def method_s_class(tree: ast.Module, name: str) -> str | None:
    """Return the last class at the top level with a method of this name."""
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef)]
    return next((one.name for one in reversed(classes) if any(_is_function(part, name) for part in one.body)), None)


def future_first(source: str) -> str:
    """Return a program with its imports from `__future__` in front, where alone Python accepts them."""
    if "__future__" not in source:
        return source
    imports = [match[0].rstrip("\n") for match in _FUTURE.finditer(source)]
    return "\n".join([*imports, _FUTURE.sub("", source)])


def _outside_definitions(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes within, but for what functions and classes hold."""
    waiting: list[ast.AST] = [node]
    while waiting:
        one = waiting.pop()
        yield one
        if not isinstance(one, (*_DEFINITIONS, ast.Lambda)):
            waiting += ast.iter_child_nodes(one)


def _gives(statement: ast.stmt, name: str) -> bool:
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        value = statement.value
        named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        callable_value = isinstance(value, (ast.Lambda, ast.Name, ast.Attribute, ast.Call))
        return named and callable_value and value is not None and name not in used(value)
    if isinstance(statement, ast.ClassDef):
        return statement.name == name or any(_is_function(part, name) and not _is_stub(part) for part in statement.body)
    if isinstance(statement, (ast.If, ast.Try, ast.With)):
        return any(_is_function(part, name) and not _is_stub(part) for part in _outside_definitions(statement))
    return _is_function(statement, name) and not _is_stub(statement)


def _is_function(node: ast.AST, name: str) -> bool:
    return isinstance(node, _FUNCTIONS) and node.name == name


def _is_stub(node: ast.AST) -> bool:
    """Whether a function says nothing but its docstring: `pass`, `...`, `raise NotImplementedError`."""
    assert isinstance(node, _FUNCTIONS)
    return all(
        isinstance(part, ast.Pass)
        or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        or (isinstance(part, ast.Raise) and "NotImplementedError" in used(part))
        for part in node.body
    )


def _sets(statement: ast.stmt, modules: set[str]) -> bool:
    """Whether it is a setting of an imported module, such as `sys.setrecursionlimit(10**6)`."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    function = call.func if isinstance(call, ast.Call) else None
    return (
        isinstance(function, ast.Attribute)
        and function.attr.startswith("set")
        and isinstance(function.value, ast.Name)
        and function.value.id in modules
    )
