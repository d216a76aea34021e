"""No n-gram twice, for vLLM: a logits processor that masks what transformers' NoRepeatNGramLogitsProcessor masks.

Importing this module imports no vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ARGUMENT = "harness_no_repeat_ngram"  # in a request's `extra_args`: n


class Following:
    """For one text, prompt included: which tokens would end an n-gram that it has already. Grows with the text."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._after: dict[tuple[int, ...], list[int]] = {}
        self._known = 0

    def repeats(self, ids: Sequence[int]) -> list[int]:
        """The tokens that would repeat an n-gram after `ids`, which begin with what was given the last time."""
        for end in range(max(self._known, self.n - 1), len(ids)):
            self._after.setdefault(tuple(ids[end - self.n + 1 : end]), []).append(ids[end])
        self._known = len(ids)
        return self._after.get(tuple(ids[max(0, len(ids) - self.n + 1) :]), [])


def processor() -> type[Any]:
    """The class that vLLM makes its logits processor of; it needs every token before the next, so no asynchronous scheduling."""
    import torch
    from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

    class NoRepeatNGram(AdapterLogitsProcessor):
        def is_argmax_invariant(self) -> bool:
            return False

        def new_req_logits_processor(self, params: Any) -> Any:
            n = (params.extra_args or {}).get(ARGUMENT)
            if n is None:
                return None
            following = Following(n)

            def mask(prompt_ids: list[int], output_ids: list[int], logits: Tensor) -> Tensor:
                """logits [vocabulary]"""
                if banned := following.repeats([*prompt_ids, *output_ids]):
                    logits[torch.tensor(banned, device=logits.device)] = -torch.inf
                return logits

            return mask

    return NoRepeatNGram
