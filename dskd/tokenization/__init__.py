"""Tokenizers: vocabularies as bytes, exact token alignment, prompt templates."""

from __future__ import annotations

import lazy_loader

# The names and where they are defined stand in __init__.pyi: methods are imported by planning, which needs no arrays.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
