"""What of a finished run must not depend on where and how it was run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.results.load import load_results
from harness.tables.leaderboard import make_leaderboard
from harness.tables.render import markdown

# Of records and manifests: times, memory, machines.
_OF_THE_RUN = {"cost", "environment", "started", "finished", "seconds"}


def results_of(root: Path) -> dict[str, Any]:
    """By path: the records and manifests without times, costs and machines, and the bytes of completions and students; the leaderboard."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if ".harness" in path.parts or not path.is_file():
            continue
        if path.name in {"result.json", "manifest.json"}:
            found[name] = _without(json.loads(path.read_text(encoding="utf-8")))
        elif path.name == "samples.jsonl" or path.suffix == ".safetensors":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    results = load_results(root)
    found["leaderboard"] = markdown(make_leaderboard(results.records, results.items))
    return found


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if key not in _OF_THE_RUN}
    return [_without(item) for item in value] if isinstance(value, list) else value
