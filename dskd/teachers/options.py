"""Options of a teacher cache. Nothing here imports torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dskd.options import Options


class TeacherCacheOptions(Options):
    """What a teacher cache stores. `stored_dtype` is for hidden states; `k` and `temperature` are for top_k."""

    kind: Literal["hidden_states", "top_k"] = "hidden_states"
    stored_dtype: Literal["same", "float16", "bfloat16"] = Field(
        "same", description="same: what the teacher computes in, equal to running it live"
    )
    k: int = Field(64, gt=0, description="tokens kept at each position")
    temperature: float = Field(1.0, gt=0, description="divides the logits before the softmax")

    @model_validator(mode="after")
    def _one_dtype_for_top_k(self) -> TeacherCacheOptions:
        if self.kind == "top_k" and self.stored_dtype != "same":
            raise ValueError("stored_dtype: top_k keeps float32 log probabilities; fix: leave stored_dtype out")
        return self

    def asked(self) -> dict[str, Any]:
        """The options that matter for this kind."""
        return self.model_dump(
            include={"kind", "stored_dtype"} if self.kind == "hidden_states" else {"kind", "k", "temperature"}
        )
