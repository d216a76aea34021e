"""Whether a model sees what comes next, which an encoder that is loaded as a causal model does."""

from __future__ import annotations

from typing import Any

import torch

from dskd.errors import InputError
from dskd.modeling.eval_mode import evaluating
from dskd.modeling.lm_head import call

_TOKENS = 6
# How much of the change at the changed token may show at earlier ones: rounding, where experts compute other tokens together.
# Measured over all architectures of transformers with random weights: 2e-7 at most for causal ones, 2e-3 at least for encoders.
_FLOAT32_TOLERANCE = 3e-4
_HALF_TOLERANCE = 2e-2


def check_causal(model: Any, vocabulary_size: int) -> None:
    """Check that logits do not depend on later tokens: with another last token, those at earlier positions stay the same.

    An encoder fails (BERT, RoBERTa without is_decoder): trained or distilled as a causal model, it would read off its labels. Two
    forwards without dropout, of token ids from a generator of its own.

    Args:
        model: A transformers causal model.
        vocabulary_size: The number of real tokens.

    Raises:
        InputError: Where they do.
    """
    device = model.get_input_embeddings().weight.device
    generator = torch.Generator().manual_seed(0)  # of its own: a check must not move a run's random numbers
    first = torch.randint(0, vocabulary_size, (1, _TOKENS), generator=generator)
    second = first.clone()
    second[0, -1] = (first[0, -1] + max(1, vocabulary_size // 2)) % vocabulary_size
    positions = torch.arange(_TOKENS, device=device)[None]
    with evaluating(model), torch.no_grad():
        logits = [
            call(model, ids, torch.ones_like(ids), positions).logits[0] for ids in (first.to(device), second.to(device))
        ]
    change = (logits[0].float() - logits[1].float()).norm(dim=-1)  # [tokens]
    tolerance = _FLOAT32_TOLERANCE if logits[0].dtype == torch.float32 else _HALF_TOLERANCE
    if bool(change[:-1].max() > tolerance * change[-1]):
        raise InputError(
            f"{model.name_or_path or type(model).__name__}: is no causal language model: what {type(model).__name__} predicts at "
            "a token depends on the tokens after it, so it would see its own labels; fix: use a causal language model (an "
            "encoder such as BERT or RoBERTa is none)"
        )
