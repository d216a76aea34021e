"""The settings that are saved with a model: generation settings that can be saved again, and the end of an answer.

transformers loads generation settings that it then refuses to save: a temperature without do_sample, as older chat models have.
A student keeps them in a form that can be saved. Where it was trained to end with another token than its folder said, its
configuration and its generation settings name that token too, so that it stops wherever it is used.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dskd.errors import InputError

log = logging.getLogger(__name__)

# What has a meaning only where tokens are drawn, with the value of each that changes nothing.
_DRAWING = {
    **dict.fromkeys(("temperature", "top_p", "typical_p"), 1.0),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff"), 0.0),
    **dict.fromkeys(("min_p", "top_h"), None),
    "top_k": 50,
}
# What is kept of settings that cannot be saved for any other reason.
_KEPT = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "max_length", "max_new_tokens")


def read_generation_config(path: Path) -> Any:
    """The generation settings in a file. InputError where transformers does not take them."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(path.parent, path.name, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: transformers does not take it ({reason}); fix: correct it, or remove the file"
        ) from None


def valid_settings(model: Any) -> None:
    """Change a model's generation settings as little as needed for transformers to save them.

    A value that matters only where tokens are drawn, such as a temperature, says that they were meant to be drawn: do_sample
    becomes true where it was not set, and the values are dropped where it was set to false. Settings that cannot be saved for
    another reason are dropped, but for token ids and lengths.
    """
    settings = getattr(model, "generation_config", None)
    if settings is None or _can_be_saved(settings):
        return
    drawing = [name for name, neutral in _DRAWING.items() if getattr(settings, name, None) not in (None, neutral)]
    if drawing and settings.do_sample is None:
        settings.do_sample = True
    elif drawing and not settings.do_sample:
        for name in drawing:
            setattr(settings, name, None)
    if not _can_be_saved(settings):
        kept = {name: getattr(settings, name) for name in _KEPT if getattr(settings, name, None) is not None}
        log.info("generation settings that transformers does not save are dropped; kept are %s", ", ".join(kept))
        model.generation_config = type(settings)(**kept)


def name_end(model: Any, end: int) -> None:
    """Make a token the end of a model's answers in its configuration and its generation settings.

    Ids that end an answer already stay where there can be several: in the generation settings, and in a configuration that has a
    list of them.
    """
    config, settings = model.config.get_text_config(), getattr(model, "generation_config", None)
    before = getattr(config, "eos_token_id", None)
    if isinstance(before, list):
        config.eos_token_id = _with_end(before, end)
    else:
        config.eos_token_id = end
    if settings is not None:
        others = settings.eos_token_id
        others = [others] if isinstance(others, int) else [*(others or ())]
        ends = _with_end(others, end)
        settings.eos_token_id = ends if len(ends) > 1 else end


def _with_end(ids: list[int], end: int) -> list[int]:
    return ids if end in ids else [end, *ids]


def _can_be_saved(settings: Any) -> bool:
    try:
        settings.validate(strict=True)
    except ValueError:
        return False
    return True
