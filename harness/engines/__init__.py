"""Engines by name: those of this package, of the entry points `harness.engines`, and `file.py:Class` (docs/engines.md).

A file `harness/engines/<name>.py` exports a subclass of `harness.engines.base.Engine` as `ENGINE`. Importing this package is
cheap: an engine's libraries are imported when it is made.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dskd.errors import InputError
from dskd.modeling.folders import require_model_folder
from harness.plugins import Plugins, modules_of

if TYPE_CHECKING:
    from harness.engines.base import Engine

log = logging.getLogger(__name__)

AUTO = "auto"
ENGINES = Plugins("engine", "harness.engines", lambda: modules_of(__name__, __path__), "ENGINE")


def names() -> list[str]:
    """Return the names of the engines; "auto" is not among them."""
    return ENGINES.names()


def check(name: str, where: str = "engine") -> None:
    """InputError for an engine that does not exist; imports none."""
    if name != AUTO:
        ENGINES.check(name, where)


def create_engine(
    name: str,
    model: Path,
    *,
    seed: int = 0,
    max_batch_size: int | None = None,
    max_length: int | None = None,
    dtype: str = "float32",
    no_repeat_ngram: bool = False,
    tensor_parallel: int = 1,
) -> Engine:
    """Load a model folder into an engine of this process.

    Args:
        name: An engine's name, or "auto" for the fastest one that runs the model here.
        max_length: Tokens of prompt and completion that are needed; the model's context length where it is None or larger.
        dtype: A torch dtype's name.
        no_repeat_ngram: Whether requests will ask that no n-gram be repeated.
        tensor_parallel: GPUs that share the model.

    Raises:
        InputError: An unknown name, an engine that cannot run the model here, or a folder that is no model.
    """
    check(name)
    require_model_folder(model)
    options: dict[str, Any] = {"seed": seed, "max_batch_size": max_batch_size, "max_length": max_length, "dtype": dtype}
    spread = {"tensor_parallel": tensor_parallel} if tensor_parallel > 1 else {}
    reason = None
    candidates = [ENGINES.load(each) for each in ([name] if name != AUTO else names())]
    for engine in sorted(candidates, key=lambda engine: -engine.preference):
        reason = engine.unavailable(model)
        if reason is None and spread and not engine.spreads:
            reason = f"engine {engine.name}: it spreads no model over several GPUs; fix: use vllm, or leave out tensor_parallel"
        if reason is None:
            return engine(model, no_repeat_ngram=no_repeat_ngram, **options, **spread)
        if name == AUTO:
            log.info("engine %s is not used: %s", engine.name, reason)
    raise InputError(str(reason))
