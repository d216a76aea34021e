"""Dual-space knowledge distillation between any two language models.

The names below are loaded when they are first used, so that `import dskd` costs nothing and the command line answers at once.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

# The names and where they live are in __init__.pyi, which editors and type checkers read as well.
_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_RENAMED = {
    "SignalOptions": "TeacherCacheOptions",
    "TeacherSignal": "Teacher",
    "build_signal": "build_teacher_cache",
    "fused_loss": "chunked_loss",
    "open_signal": "open_teacher_cache",
}

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    return _lazy(_RENAMED.get(name, name))
