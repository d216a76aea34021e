"""What tokens of a hosted model cost, as the user says it: it is never guessed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TokenPrice(BaseModel):
    """What a million tokens cost, in any currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(ge=0, allow_inf_nan=False)
    completion: float = Field(ge=0, allow_inf_nan=False)
