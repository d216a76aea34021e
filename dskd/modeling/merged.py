"""A folder with all of a model for programs that do not merge adapters, such as vLLM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dskd.modeling.folders import parts_of
from dskd.modeling.loading import load_model, load_tokenizer


@contextmanager
def whole_model(model: Path, dtype: str) -> Iterator[Path]:
    """A model's own folder, or for an adapter a merged copy in this dtype, which is gone at the end of the block."""
    if not parts_of(model).is_adapter:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="harness-merged-") as folder:
        load_model(model, dtype).save_pretrained(folder)  # as the transformers engine merges it
        load_tokenizer(model).save_pretrained(folder)
        yield Path(folder)
