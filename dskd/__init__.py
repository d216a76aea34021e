"""Dual-space knowledge distillation between any two language models.

The names below are loaded when they are first used, so that `import dskd` costs nothing and the command line answers at once.
"""

from __future__ import annotations

import lazy_loader

# The names and where they live stand in __init__.pyi, which editors and type checkers read as well.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
