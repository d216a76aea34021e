"""Which code of a chat model's answer is run, and what is put around it. docs/answers.md has the rule in words.

The field's rule for completions (HumanEval's and lm-eval's: up to a stop string) is in `code.py` and stays as it is.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence

from harness.metrics.code_blocks import PYTHON, Block, fenced_blocks, loose_blocks, tagged_blocks, visible
from harness.metrics.code_pieces import (
    Piece,
    binds,
    is_main_guard,
    method_s_class,
    own_names,
    parsed,
    piece_of,
    returns_outside_functions,
    used,
)
from harness.metrics.own_answer import after_reasoning

# Raised whenever another part of an answer is read; the versions of the tasks of functions are raised with it.
RULE = "1"
# Characters of an answer that are read, after its reasoning: some fifty thousand tokens. The rest of a longer one is not looked at.
MOST_READ = 200_000
# Blocks that are parsed to find where the function is defined; of more, the last.
MOST_BLOCKS = 400


def read_code(answer: str, functions: Sequence[str], *, also: Sequence[str] = (), prompt: str = "") -> str:
    """Return the code of an answer that is to be run: what defines the functions, or what may be their body.

    Args:
        functions: The names that the tests call.
        also: Other names that the tests need (classes).
        prompt: The text of which the answer may be the continuation; empty where only whole functions are asked for.
    """
    answer = after_reasoning(answer)[:MOST_READ]
    for blocks in (fenced_blocks(answer), tagged_blocks(answer), loose_blocks(answer)):
        pieces = _pieces(blocks, functions)
        if chosen := _defining(pieces, functions):
            return _whole(chosen, [piece for _, piece in pieces], functions, also, prompt)
    return _body(answer, prompt) if prompt else _last_python(answer)


def _pieces(blocks: Sequence[Block], functions: Sequence[str]) -> list[tuple[Block, Piece]]:
    return [
        (block, piece_of(visible(block.text), functions[-1] if functions else None)) for block in blocks[-MOST_BLOCKS:]
    ]


def _defining(pieces: Sequence[tuple[Block, Piece]], functions: Sequence[str]) -> Piece | None:
    """The last of the pieces that define most of the functions.

    One that does not parse gives way to one that does, where it was cut by the answer's end or names another language: pseudocode.
    One that only repeats the beginning of another, as an explanation does, is no version of its own.
    """
    counted = [(sum(piece.defines(name) for name in functions), block, piece) for block, piece in pieces]
    most = max((count for count, _, _ in counted), default=0)
    if most == 0:
        return None
    best = [(block, piece) for count, block, piece in counted if count == most]
    sound = [piece for block, piece in best if piece.tree or (block.closed and block.language in PYTHON)]
    versions = sound or [piece for _, piece in best]
    bodies = [[piece.body_lines(name) for name in functions] for piece in versions]
    while any(_begins(ours, theirs) for other in bodies[:-1] for ours, theirs in zip(bodies[-1], other, strict=True)):
        bodies.pop()
    return versions[len(bodies) - 1]


def _begins(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether the lines of a function's body are the first of another's, and fewer."""
    return 0 < len(ours) < len(theirs) and ours == theirs[: len(ours)]


def _whole(chosen: Piece, pieces: Sequence[Piece], functions: Sequence[str], also: Sequence[str], prompt: str) -> str:
    """The program: what other blocks define and the chosen one lacks, the chosen one without examples of use, what makes it callable."""
    if chosen.tree is None:
        return chosen.code.strip("\n")
    needed = [*functions, *also, *_classes(chosen, functions)]
    code = Piece(_unguarded(chosen, functions), chosen.tree).up_to_needed(needed).strip("\n")
    return "\n".join([*_from_other_blocks(chosen, pieces, prompt), code, *_callable(chosen, functions)])


def _classes(chosen: Piece, functions: Sequence[str]) -> list[str]:
    """The classes that hold the functions which stand nowhere else."""
    assert chosen.tree is not None
    return [owner for name in functions if name not in chosen.bound and (owner := method_s_class(chosen.tree, name))]


def _callable(chosen: Piece, functions: Sequence[str]) -> list[str]:
    """Lines that make a method of a class a function, as tests call it."""
    assert chosen.tree is not None
    missing = [name for name in functions if name not in chosen.bound]
    return [f"{name} = {owner}().{name}" for name in missing if (owner := method_s_class(chosen.tree, name))]


def _unguarded(chosen: Piece, functions: Sequence[str]) -> str:
    """The code with its `if __name__ == "__main__":` made always true, where the function is defined only behind it."""
    assert chosen.tree is not None
    lines = list(chosen.lines)
    for name in functions:
        where = chosen.bound.get(name, [])
        if where and all(is_main_guard(statement) for statement in where):
            for statement in where:
                assert isinstance(statement, ast.If)
                if statement.body[0].lineno > statement.lineno:
                    lines[statement.lineno - 1] = "if True:"
    return "\n".join(lines)


def _from_other_blocks(chosen: Piece, pieces: Sequence[Piece], prompt: str) -> list[str]:
    """The definitions, imports and constants of other blocks that the chosen one speaks of and does not have."""
    known = set(dir(builtins)) | _names_of(prompt)
    place = next(number for number, piece in enumerate(pieces) if piece is chosen)
    others = [piece for piece in [*pieces[place + 1 :], *pieces[:place]] if piece.tree]  # the nearest before it counts
    parts: list[str] = []
    waiting = [chosen]
    while waiting:
        piece = waiting.pop()
        assert piece.tree is not None
        lacking = used(piece.tree) - own_names(piece.tree) - known
        known |= lacking | own_names(piece.tree)
        for name in sorted(lacking):
            giver = next((other for other in reversed(others) if name in other.bound), None)
            if giver is None:
                continue
            for statement in giver.bound[name]:
                text = giver.text_of(statement)
                if text not in parts and (part := parsed(text)) is not None:
                    parts.insert(0, text)
                    waiting.append(Piece(text, part))
    return parts


def _names_of(prompt: str) -> set[str]:
    tree = parsed(prompt)
    return set().union(*(binds(statement) for statement in tree.body)) if tree else set()


def _body(answer: str, prompt: str) -> str:
    """The body of the function that the prompt began: the first block that returns, else the first of Python, else the answer."""
    blocks = [block for block in fenced_blocks(answer) or tagged_blocks(answer) if _is_python(block)]
    if not blocks:
        loose = loose_blocks(answer, bodies=True)
        blocks = [block for block in loose if _returns(block, prompt)]
    chosen = next((block for block in blocks if _returns(block, prompt)), next(iter(blocks), None))
    return _indented(visible(chosen.text if chosen else answer), prompt)


def _is_python(block: Block) -> bool:
    return block.language in PYTHON and bool(block.text.strip())


def _returns(block: Block, prompt: str) -> bool:
    tree = piece_of(_indented(visible(block.text), prompt)).tree
    return tree is not None and returns_outside_functions(tree)


def _indented(body: str, prompt: str) -> str:
    """The body at the indentation that the prompt ends with, where its first line has another."""
    lines = body.split("\n")
    filled = [line for line in lines if line.strip()]
    if not filled:
        return body
    wanted = _indentation([line for line in prompt.split("\n") if line.strip()][-1])
    first = _indentation(filled[0])
    if first == wanted:
        return body
    if not first and len(filled) > 1 and _lost_its_indentation(filled, wanted):
        at = lines.index(filled[0])
        return "\n".join([*lines[:at], wanted + lines[at], *lines[at + 1 :]])
    return "\n".join(wanted + line.removeprefix(first) if line.strip() else line for line in lines)


def _lost_its_indentation(filled: list[str], wanted: str) -> bool:
    """Whether only the first line lacks the indentation, as where a text was stripped."""
    second = _indentation(filled[1])
    needed = wanted * 2 if filled[0].rstrip().endswith(":") else wanted
    return len(second) >= len(needed) and all(len(_indentation(line)) >= len(wanted) for line in filled[1:])


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _last_python(answer: str) -> str:
    """Where nothing defines what the tests call: the last block of Python, else the whole answer; it fails, and shows why."""
    blocks = [block for block in fenced_blocks(answer) or tagged_blocks(answer) if _is_python(block)]
    return visible(blocks[-1].text if blocks else answer)
