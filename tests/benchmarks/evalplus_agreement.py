"""The verdicts on HumanEval+ and MBPP+ beside evalplus' own, on the data sets' solutions and on mutants of them.

evalplus is no dependency (it wants an older datasets): install it beside the others and name its folder in PYTHONPATH.

    pip install --no-deps --target DIR evalplus==0.3.1 tempdir appdirs wget termcolor multipledispatch fire tree-sitter tree-sitter-python
    HARNESS_DATA=… PYTHONPATH=DIR python tests/benchmarks/evalplus_agreement.py --json agreement.json

evalplus runs the programs in a process of its own without a sandbox: they are the data sets' own, and mutants of those.
"""

from __future__ import annotations

import ast
import gzip
import importlib.util
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import report

from harness import tasks
from harness.metrics.code import CodeFormat
from harness.metrics.plus_tests import BASE, PLUS, score_plus
from harness.metrics.sample import SampleScore
from harness.sandbox import Program

# Each line of the data: the task, evalplus' name of the data set, its variable for the file's path.
DATA_SETS = (("humaneval_plus", "humaneval", "HUMANEVAL_OVERRIDE_PATH"), ("mbpp_plus", "mbpp", "MBPP_OVERRIDE_PATH"))
SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Div,
    ast.Div: ast.FloorDiv,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def main() -> None:
    parser = report.parser(__doc__ or "", "python tests/benchmarks/evalplus_agreement.py --json agreement.json")
    parser.add_argument("--mutants", type=int, default=1, help="mutants of each solution")
    parser.add_argument("--every", type=int, default=1, help="only every n-th problem")
    options = parser.parse_args()
    if importlib.util.find_spec("evalplus") is None:
        print("skipped: evalplus is not installed; fix: the docstring says how")
        return
    rows, differing = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, _, variable in DATA_SETS:  # evalplus looks for both when it is imported
            unpack(name, variable, Path(folder))
        for name, data_set, _ in DATA_SETS:
            row, differs = compare(name, data_set, options)
            rows.append(row)
            differing += differs
    for line in differing:
        print(line)
    programs = sum(row["programs"] for row in rows)
    report.publish(
        "evalplus_agreement",
        rows,
        value={"programs": programs, "differing": len(differing)},
        bar={"differing": "none that evalplus judges so twice, but HumanEval/32 (the card says why)"},
        holds=all(", still " not in line.partition("\n")[0] or line.startswith("HumanEval/32:") for line in differing),
        shapes=f"every {options.every}. problem, {options.mutants} mutants of each solution",
        dtype="verdicts on base and further tests",
        file=options.json,
    )


def unpack(name: str, variable: str, folder: Path) -> None:
    """Write a data set as evalplus reads it, and name the file in the variable that evalplus looks at."""
    data = tasks.load(name).data
    assert data is not None
    unpacked = folder / f"{name}.jsonl"
    unpacked.write_bytes(gzip.decompress(Path(data.check().path).read_bytes()))
    os.environ[variable] = str(unpacked)


def compare(name: str, data_set: str, options: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the counts of one data set, and a line for each program that the two judge differently."""
    docs = tasks.load(name).docs()[:: options.every]
    programs = [(doc, source) for doc in docs for source in (doc["solution"], *mutants(doc, options.mutants))]
    before = time.monotonic()
    form = CodeFormat(program=lambda _, source: Program(source))
    chosen = [doc for doc, _ in programs]
    scores = score_plus(chosen, [source for _, source in programs], ("\0",), lambda: None, form)
    between = time.monotonic()
    theirs = their_verdicts(data_set, programs)
    after = time.monotonic()
    judged = [one for one in zip(programs, scores, theirs, strict=True) if differs(*one[1:])]
    again = their_verdicts(data_set, [program for program, _, _ in judged])
    differing = []
    for (program, score, first), second in zip(judged, again, strict=True):
        (doc, source), kind = program, "still" if differs(score, second) else "not when asked again"
        differing.append(f"{doc['id']}: {score.outcome} {score.detail!r}, evalplus {first}, {kind} {second}\n{source}")
    row = {
        "task": name,
        "programs": len(programs),
        "pass": sum(score.scores[PLUS] == 100.0 for score in scores),
        "pass base alone": sum(score.scores[BASE] == 100.0 != score.scores[PLUS] for score in scores),
        "differing": len(differing),
        "seconds": between - before,
        "evalplus seconds": after - between,
    }
    print(Counter(score.outcome for score in scores), file=sys.stderr)
    return row, differing


def differs(score: SampleScore, theirs: tuple[str, str]) -> bool:
    """Whether evalplus' verdicts on base and on further tests are others than ours."""
    ours = (score.scores[BASE] == 100.0, score.scores[PLUS] == 100.0)
    return ours != (theirs[0] == "pass", theirs[0] == theirs[1] == "pass")


def their_verdicts(data_set: str, programs: list[tuple[dict[str, Any], str]]) -> list[tuple[str, str]]:
    """Return evalplus' status on base and on further tests, of each program."""
    from evalplus.data import get_human_eval_plus, get_mbpp_plus
    from evalplus.eval import untrusted_check
    from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
    from evalplus.gen.util import trusted_exec

    problems = get_human_eval_plus() if data_set == "humaneval" else get_mbpp_plus()
    expected: dict[tuple[str, str], Any] = {}

    def status(doc: dict[str, Any], source: str, inputs: str) -> str:
        problem = problems[doc["id"]]
        if (key := (doc["id"], inputs)) not in expected:
            none_only = data_set == "mbpp" and doc["entry_point"] in MBPP_OUTPUT_NOT_NONE_TASKS
            code = problem["prompt"] + problem["canonical_solution"]
            expected.clear()  # programs come by problem, and some values are large
            for each in ("base_input", "plus_input"):
                expected[doc["id"], each] = trusted_exec(
                    code, problem[each], doc["entry_point"], record_time=True, output_not_none=none_only
                )
        values, seconds = expected[key]
        return untrusted_check(
            data_set, source, problem[inputs], doc["entry_point"], values, problem["atol"], seconds, fast_check=True
        )[0]

    return [(status(doc, source, "base_input"), status(doc, source, "plus_input")) for doc, source in programs]


def mutants(doc: dict[str, Any], number: int) -> Iterator[str]:
    """Yield programs that differ from the solution in one place each, always the same ones."""
    chance = random.Random(doc["id"])
    places = sum(1 for _ in _places(ast.parse(doc["solution"])))
    for place in chance.sample(range(places), min(number, places)):
        tree = ast.parse(doc["solution"])
        node, field, value = list(_places(tree))[place]
        if isinstance(field, int):
            node[field] = value
        else:
            setattr(node, field, value)
        yield ast.unparse(ast.fix_missing_locations(tree))


def _places(tree: ast.Module) -> Iterator[tuple[Any, Any, Any]]:
    """What can be changed, by what: (node or list, field or index, new value). Operators, numbers, statements."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPPED:
            yield node, "op", SWAPPED[type(node.op)]()
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
            yield node.ops, 0, SWAPPED[type(node.ops[0])]()
        elif isinstance(node, ast.Constant) and type(node.value) in (int, bool):
            yield node, "value", not node.value if isinstance(node.value, bool) else node.value + 1
        if isinstance(node, (ast.For, ast.While, ast.If, ast.FunctionDef)):
            for index, statement in enumerate(node.body):
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                    yield node.body, index, ast.Pass()


if __name__ == "__main__":
    main()
