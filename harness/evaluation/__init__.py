"""Evaluation by generation: a model and tasks to completions and scores."""

from __future__ import annotations

import lazy_loader

# The names and where they are defined stand in __init__.pyi, which editors and type checkers read as well.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
