"""Models: loading, output heads, adapters, projectors, attention between two models. Loaded when used: methods import no torch."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
