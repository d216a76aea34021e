"""The progress bars of `datasets`: off where nobody sees them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_bars(*, keep_on_terminals: bool = False) -> Iterator[None]:
    """No bars of `datasets` while the context lasts.

    Args:
        keep_on_terminals: Leave them where standard error is a terminal, so that a person sees a long download.
    """
    import datasets

    if datasets.are_progress_bars_disabled() or (keep_on_terminals and sys.stderr.isatty()):
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
