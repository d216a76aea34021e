"""Completions on the disk as soon as they exist, so that a killed evaluation loses only the block that it was generating.

An engine generates in blocks, and which prompts form a block follows from the request alone. A block in the cache is read
back; every other block is generated with the same prompts in it as before. So a resumed run gives the completions of a run
that was never killed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from harness.engines._pairs import EncodedPair
from harness.engines._types import GeneratedTokens, LogLikelihood, Sampling

Stored = TypeVar("Stored", GeneratedTokens, LogLikelihood)

_LATER = {"max_reasoning_tokens": None, "reasoning_end": "cut", "after_reasoning": False}


class CompletionCache:
    """Blocks in a file, a JSON object a line: {"block", "completions"}. A torn last line is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blocks: dict[str, list[dict[str, Any]]] = {}
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            entry = json.loads(line)
            self._blocks[entry["block"]] = entry["completions"]
        if whole != content:
            path.write_bytes(whole)

    def get(self, block: str, kind: type[Stored]) -> list[Stored] | None:
        """Return what `put` stored under a block's key, of this kind, or None."""
        return [kind(**entry) for entry in self._blocks[block]] if block in self._blocks else None

    def put(self, block: str, completions: Sequence[GeneratedTokens | LogLikelihood]) -> None:
        """Store a block; it is on the disk when this returns."""
        line = json.dumps({"block": block, "completions": [asdict(completion) for completion in completions]})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Remove the file, once the completions are stored elsewhere."""
        self.path.unlink(missing_ok=True)


def block_key(prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> str:
    """Return the hash of all that decides a block's completions, the model and the engine aside."""
    # What came later counts only where it is set: older blocks keep their keys.
    settings = {key: value for key, value in asdict(sampling).items() if key not in _LATER or value != _LATER[key]}
    request = [list(map(list, prompts)), settings, list(seeds)]
    return hashlib.sha256(json.dumps(request).encode()).hexdigest()


def pairs_key(pairs: Sequence[EncodedPair]) -> str:
    """Return the hash of all that decides a block's log-likelihoods, the model and the engine aside."""
    request = [[list(pair.context), list(pair.continuation), pair.truncated] for pair in pairs]
    return hashlib.sha256(json.dumps({"loglikelihoods": request}).encode()).hexdigest()
