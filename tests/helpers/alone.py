"""A Python without this project: whoever loads a published student has transformers, peft or vLLM, and neither dskd nor harness."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# Without `site`, no file of the environment puts the project on the path; its packages are added by name.
_START = """
import sys, importlib.util
sys.path += {packages!r}
for name in ("dskd", "harness"):
    found = importlib.util.find_spec(name)
    assert found is None or found.loader is None, name  # an empty folder of that name is no package
exec(compile(open({code!r}).read(), {code!r}, "exec"))
"""


def run_alone(code: str, folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Run code in a process that cannot import this project, and return what it printed.

    Args:
        code: Python.
        folder: An empty place for its file, where the process starts.
        env: Settings beside those of this process.
    """
    specification = importlib.util.find_spec("transformers")
    assert specification is not None
    assert specification.origin is not None
    packages = str(Path(specification.origin).parents[1])
    file = folder / "alone.py"
    file.write_text(code, encoding="utf-8")
    start = _START.format(packages=[packages], code=str(file))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", start],
        cwd=folder,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
