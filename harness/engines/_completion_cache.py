"""Answers on the disk as soon as they are there, so that a killed evaluation loses the block in flight and nothing else.

An engine answers in blocks whose members follow from the requests alone. A block that was answered is read back and not asked
again, and the others are asked in the very company that they would have had: the answers are those of a run that was never killed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.engines.base import Completion, Sampling


class AnswerStore:
    """Completions of blocks of requests in a file, a JSON object a line: {"block", "completions"}; a torn last line is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, list[dict[str, Any]]] = {}
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            entry = json.loads(line)
            self._found[entry["block"]] = entry["completions"]
        if whole != content:
            path.write_bytes(whole)

    def get(self, block: str) -> list[dict[str, Any]] | None:
        """The completions of a block, in order, as `put` was given them; None where it is not there."""
        return self._found.get(block)

    def put(self, block: str, completions: Sequence[Completion]) -> None:
        """Keep a block; it is on the disk when this returns."""
        line = json.dumps({"block": block, "completions": [asdict(completion) for completion in completions]})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Remove the file: the answers are elsewhere by now."""
        self.path.unlink(missing_ok=True)


def block_key(prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> str:
    """What a block's answers follow from, the model and the engine aside."""
    asked = [list(map(list, prompts)), asdict(sampling), list(seeds)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
