from .batch_sampler import EpochBatches
from .collator import Collator
from .preparation import Example, PreparationReport, encode_prompt, load_examples, prepare_dataset

__all__ = [
    "Collator",
    "EpochBatches",
    "Example",
    "PreparationReport",
    "encode_prompt",
    "load_examples",
    "prepare_dataset",
]
