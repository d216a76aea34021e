"""What kinds of steps import that takes seconds (`Step.libraries`), in the order in which a process of its own would import it.

A job does not depend on this list. What is missing here it imports itself, and only loses the time.
"""

from __future__ import annotations

from importlib.util import find_spec

TOKENIZERS = (
    "torch",
    "transformers",
    "transformers.models.auto.tokenization_auto",
    "datasets",
    "dskd.data.preparation",
)
MODELS = (*TOKENIZERS, "transformers.modeling_utils", "transformers.models.auto.modeling_auto")
TRAINING = (*MODELS, "accelerate", "transformers.trainer", "dskd.training.run")
_METRICS = ("nltk.stem.porter", "rapidfuzz.distance", "rouge_score.scoring", "rouge_score.tokenize")
EVALUATION = (*MODELS, "harness.evaluation.evaluate", "harness.metrics.rouge", *_METRICS)
VLLM = ("vllm", "vllm.v1.engine.llm_engine")


def evaluation_libraries(engine: str) -> tuple[str, ...]:
    """What an evaluation by this engine imports."""
    uses_vllm = engine in {"auto", "vllm"} and find_spec("vllm") is not None
    return (*EVALUATION, *(VLLM if uses_vllm else ()))
