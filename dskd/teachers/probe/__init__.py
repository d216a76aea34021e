"""The probe of a served teacher, before anything is learnt from it: is it the model that it is taken for, and does it answer alike?"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
