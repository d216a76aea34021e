from .batch_sampler import EpochBatches
from .collator import Collator
from .examples import iter_examples, load_examples
from .options import DataOptions
from .preparation import PreparationReport, encode_prompt, preparation_report, prepare_dataset
from .routes import Route, split_by_teacher
from .shapes import Example

__all__ = [
    "Collator",
    "DataOptions",
    "EpochBatches",
    "Example",
    "PreparationReport",
    "Route",
    "encode_prompt",
    "iter_examples",
    "load_examples",
    "preparation_report",
    "prepare_dataset",
    "split_by_teacher",
]
