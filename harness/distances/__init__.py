"""Distances of evaluated models from their teachers: which texts, and what their numbers come to. dskd.distances computes them."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
