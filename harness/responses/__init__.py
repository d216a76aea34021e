"""A teacher's responses to the prompts of a training set: what is asked, and the example that an answer becomes."""

from __future__ import annotations

import lazy_loader

# The names and where they are defined stand in __init__.pyi: asking needs asyncio, and planning asks nobody.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
