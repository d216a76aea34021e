"""How far a student is from a teacher on given texts: divergences of their distributions, log-likelihoods, entropies (docs/distances.md)."""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
