"""Sequence-level knowledge distillation (Kim and Rush, arXiv 1606.07947): cross entropy on responses that the teacher wrote.

What differs from supervised fine-tuning is the data alone (`response_source`), which the harness has the teacher write.
"""

from __future__ import annotations

from pydantic import Field

from dskd.methods.base import Options, Requirements, register
from dskd.methods.sft import SupervisedFineTuning


class SequenceLevelOptions(Options):
    """How the teacher answers; the loss has no options."""

    max_new_tokens: int = Field(256, gt=0, description="longest answer; one that has no end by then is left out")
    answer_temperature: float = Field(0.0, ge=0.0, description="0: the most probable token each time; else sampled")


@register
class SequenceLevelDistillation(SupervisedFineTuning):
    """L = L_CE with the teacher's answer y' ~ p(· | x) in place of the data's: the paper's eq. 6 with one answer for the mode."""

    name = "seqkd"
    title = "sequence-level distillation"
    paper = "arXiv 1606.07947"
    not_reproduced = "The paper trains on the best of a beam of five; here the teacher's one answer, greedy or sampled."
    requires = Requirements(teacher=False, on_policy="never", response_source="teacher")
    Options = SequenceLevelOptions
