"""Dual-space knowledge distillation between any two language models.

The names below are loaded when they are first used, so that `import dskd` costs nothing and the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "InputError": "dskd.errors",
    "Vocabulary": "dskd.vocabulary",
    "SharedVocabulary": "dskd.vocabulary",
    "share_vocabulary": "dskd.vocabulary",
    "align": "dskd.alignment",
    "align_tokenizers": "dskd.alignment",
    "byte_spans": "dskd.alignment",
    "Head": "dskd.heads",
    "output_head": "dskd.heads",
    "DualSpaceProjectors": "dskd.projectors",
    "DIVERGENCES": "dskd.divergences",
    "Example": "dskd.data",
    "Instruction": "dskd.templates",
    "Template": "dskd.templates",
    "encode_prompt": "dskd.data",
    "load_examples": "dskd.data",
    "prepare_dataset": "dskd.data",
    "METHODS": "dskd.methods",
    "Method": "dskd.methods",
    "DistillationTrainer": "dskd.trainer",
    "TrainingOptions": "dskd.training",
    "train": "dskd.training",
    "build_signal": "dskd.signals",
    "open_signal": "dskd.signals",
    "SignalOptions": "dskd.signals",
    "TeacherSignal": "dskd.signals",
    "fused_loss": "dskd.fused",
    "TrainingFailed": "dskd.errors",
    "LoraOptions": "dskd.adapters",
    "AffineProjectors": "dskd.projectors",
    "Collator": "dskd.collation",
    "EpochBatches": "dskd.batches",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dskd' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
