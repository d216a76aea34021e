"""Engines, one file each: `harness/engines/<name>.py` exports a subclass of `harness.engines.base.Engine` as `ENGINE`.

Importing this package is cheap; an engine's libraries are imported when it is made.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from dskd.errors import InputError

if TYPE_CHECKING:
    from harness.engines.base import Engine

log = logging.getLogger(__name__)


def names() -> list[str]:
    """The names of the engines; "auto" is not among them."""
    return sorted(module.name for module in iter_modules(__path__) if module.name != "base")


def create_engine(
    name: str,
    model: Path,
    *,
    seed: int = 0,
    max_batch_size: int | None = None,
    max_length: int | None = None,
    dtype: str = "float32",
    no_repeat_ngram: bool = False,
) -> Engine:
    """Load a model folder into an engine.

    name: an engine's name, or "auto" for the fastest one that runs the model here.
    max_length: tokens of prompt and answer that are needed; the model's context length where it is None or larger.
    dtype: a torch dtype's name.
    no_repeat_ngram: whether requests will ask that no n-gram be repeated.
    Raises InputError for an unknown name, an engine that cannot run the model here, and a folder that is no model.
    """
    from dskd.modeling.loading import require_model_folder

    if name not in ("auto", *names()):
        raise InputError(f"unknown engine {name!r}: known are auto, {', '.join(names())}")
    require_model_folder(model)
    return _choose(name, model)(
        model,  # type: ignore[call-arg]
        seed=seed,
        max_batch_size=max_batch_size,
        max_length=max_length,
        dtype=dtype,
        no_repeat_ngram=no_repeat_ngram,
    )


def _choose(name: str, model: Path) -> type[Engine]:
    candidates = [import_module(f"{__name__}.{each}").ENGINE for each in ([name] if name != "auto" else names())]
    reason = None
    for engine in sorted(candidates, key=lambda engine: -engine.preference):
        reason = engine.unavailable(model)
        if reason is None:
            return engine
        if name == "auto":
            log.info("engine %s is not used: %s", engine.name, reason)
    raise InputError(str(reason))
