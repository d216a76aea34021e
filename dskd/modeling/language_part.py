"""Models of text and images (Gemma 3, Mistral 3, Qwen-VL): loaded as what they are, and their language part taken out where it stands alone.

Distillation and scoring are about text. Where transformers has a causal model of the kind that `text_config` names, that one is used,
with the same weights, and what is saved of a student is a text model. Where it has none (Qwen-VL), the whole model answers to text.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any


def auto_class(folder: Path, code: dict[str, bool]) -> Any:
    """The class of transformers that loads the model in a folder: the one for language models, or the one for text and images.

    Args:
        folder: Of the model.
        code: What `from_pretrained` is told about code that comes with the model.

    Returns:
        `AutoModelForCausalLM`, also for what is neither: it says so itself.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    kind = type(AutoConfig.from_pretrained(folder, local_files_only=True, **code))
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING or kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForCausalLM
    return AutoModelForImageTextToText


def language_model(model: Any) -> Any:
    """A model itself where it is a language model, or has no language part that stands alone; otherwise that part.

    Args:
        model: A model of `auto_class`.

    Returns:
        A causal model. It shares its weights with `model`, whose other parts are no longer needed.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config: Any = getattr(model.config, "text_config", None)
    inner = getattr(model.base_model, "language_model", None)
    if inner is None or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return model
    head = model.get_output_embeddings()
    config = copy.deepcopy(config)  # what it says of tied weights may be true of the whole alone
    config.tie_word_embeddings = head.weight is inner.get_input_embeddings().weight
    with torch.device("meta"):
        text: Any = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    if type(text.base_model) is not type(inner):
        return model
    setattr(text, text.base_model_prefix, inner)
    text.set_output_embeddings(head)
    text.generation_config = model.generation_config
    text.config.name_or_path = model.config.name_or_path
    return text.eval()
