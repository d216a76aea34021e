"""A finished matrix that is run again prints the same and loads no library that computes: it has to take no second."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from harness.planning.plan import make_plan
from helpers.finished_runs import finish, write_small_matrix

HEAVY = {
    "numpy",
    "scipy",
    "statsmodels",
    "pandas",
    "pyarrow",
    "torch",
    "transformers",
    "datasets",
    "lm_eval",
    "asyncio",
}
PROGRAM = """
import json, sys
from harness.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def test_the_same_is_printed_and_nothing_heavy_is_imported(tmp_path: Path) -> None:
    matrix, root = write_small_matrix(tmp_path / "matrix.yaml", seeds=2), tmp_path / "run"
    finish(make_plan(str(matrix), output_dir=root, allow_code_execution=True))

    def run() -> tuple[str, set[str]]:
        asked = ["--matrix", str(matrix), "--output-dir", str(root), "--allow-code-execution"]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "run", *asked], capture_output=True, text=True, check=True, timeout=300
        )
        return done.stdout, {*json.loads(done.stderr.splitlines()[-1])}

    first, imported = run()
    assert {"numpy", "scipy"} <= imported  # the test sees what is imported
    again, imported = run()
    assert again == first
    assert "small-teacher -> small-student" in again
    assert imported & HEAVY == set()
    record = next(root.rglob("eval/*/result.json"))
    content = json.loads(record.read_text())
    content["metrics"][content["headline"]]["value"] = 0.0
    record.write_text(json.dumps(content))
    changed, imported = run()
    assert {"numpy", "scipy"} <= imported
    assert changed != ""
