"""What samples a student's responses in a training."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from dskd.errors import InputError
from dskd.methods.base import Method
from dskd.modeling.gpu_share import gpu_share
from dskd.rollouts.ends import other_end
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.rollouts import Rollouts
from dskd.rollouts.sampler import Sampler, TransformersSampler
from dskd.rollouts.teacher_mixed_sampler import TeacherMixedSampler
from dskd.rollouts.vllm_sampler import VllmSampler
from dskd.training.loaded_model import LoadedModel
from dskd.training.options import TrainingOptions

log = logging.getLogger(__name__)


def sampler_of(
    options: RolloutOptions,
    method: Method,
    student: LoadedModel,
    teacher: LoadedModel | None,
    prompt_lengths: np.ndarray,
    training: TrainingOptions,
) -> Sampler:
    """What samples the student's responses.

    Args:
        options: How.
        method: It may sample from the teacher too.
        student, teacher: The models; None where there are several teachers.
        prompt_lengths: The student's tokens of each prompt [examples].
        training: Its dtype is that of the copy of the student in another engine.

    Raises:
        InputError: Where the student has no room for a response after the longest prompt.
    """
    new, longest = options.max_new_tokens, int(prompt_lengths.max())
    if student.positions is not None and longest + new > student.positions:
        raise InputError(
            f"{student.folder}: the model has {student.positions} positions, but the longest prompt {longest} tokens; "
            f"fix: set rollouts.max_new_tokens to {max(student.positions - longest, 1)} or less, or leave out long prompts"
        )
    sampled: Any = student.model, student.vocabulary, student.tokenizer.eos_token_id
    draws: Any = {"temperature": options.temperature, "top_p": options.top_p}
    if share := method.requires.teacher_mix_in_alpha:
        assert teacher is not None
        return TeacherMixedSampler(*sampled, teacher=teacher.model, teacher_mix=share, **draws)
    if options.engine == "vllm":
        memory = options.gpu_memory_utilization * gpu_share()
        # Of batches by tokens nobody knows how many examples they hold.
        batch = 64 if training.batch_tokens else training.batch_size * training.gradient_accumulation_steps
        return VllmSampler(
            *sampled,
            length=longest + new,
            dtype=training.dtype,
            gpu_memory_utilization=memory,
            prompts=batch * (1 + options.writes_ahead),
            **draws,
        )
    return TransformersSampler(*sampled, **draws)


def warn_of_ends(rollouts: Rollouts, student: LoadedModel, teachers: dict[str, LoadedModel]) -> None:
    """Warn of models that end a turn by another token than texts end with in this training."""
    for name, model in {"student": student, **teachers}.items():
        if message := other_end(model.folder, model.tokenizer, name):
            for told in rollouts.guards.tell(f"end of {name}", message):
                log.warning(told)
