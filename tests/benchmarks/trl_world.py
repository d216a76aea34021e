"""Two tokenizers with large vocabularies, conversations, models of random weights, and our steps on batches that TRL's collator made."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from p13_step import model as random_model
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dskd import methods
from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.rollouts.sampler import Prompt, TransformersSampler
from dskd.teachers.teacher import Teacher
from dskd.tokenization.alignment import align, byte_groups
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary
from dskd.training.distiller import Distiller
from helpers.tiny_tokenizers import LINES, byte_level

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)


def large_tokenizer(trained: int, size: int) -> Any:
    """A byte-level tokenizer that was trained on a few lines, with tokens that no text has up to `size`."""
    state = json.loads(byte_level(trained).backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for number in range(size - len(vocabulary)):
        vocabulary[f"Ġunused{number}"] = len(vocabulary)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token="<|end|>", pad_token="<|end|>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def conversations(count: int, words: tuple[int, int]) -> list[dict[str, Any]]:
    """Rows as TRL's trainers take them, of so many words in prompt and answer, with the texts that GOLD's teacher is given."""
    random = np.random.default_rng(0)
    known = sorted({word for line in LINES for word in line.split() if word.isascii()})

    def text(length: int) -> str:
        return " ".join(random.choice(known, length))

    rows = []
    for _ in range(count):
        user, assistant = text(words[0]), text(words[1])
        messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        asked = f"user:\n{user}\nassistant:\n"
        rows.append({"messages": messages, "original_prompt_text": asked, "original_completion_text": assistant})
    return rows


def models(chosen: Any, sizes: tuple[int, int]) -> tuple[Any, Any]:
    """Student and teacher, with the same weights whenever they are made."""
    student, teacher = random_model(*chosen.student, sizes[0]), random_model(*chosen.teacher, sizes[1])
    return student, teacher.requires_grad_(False).eval()


def side_of(inputs: dict[str, Tensor]) -> SideTokens:
    """Our form of a batch of TRL's, whose `labels` [rows, width] are of the positions themselves."""
    labels = inputs["labels"][:, 1:]
    rows, columns = (labels >= 0).nonzero(as_tuple=True)
    mask = inputs["attention_mask"].long()
    return SideTokens(
        input_ids=inputs["input_ids"],
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp_min(0),
        labelled=rows * mask.shape[1] + columns,
        labels=labels[rows, columns],
        size=int(mask.sum()),
        sizes=rows.bincount(minlength=len(mask)),
    )


def same_tokens(side: SideTokens) -> TokenBatch:
    """The batch of a teacher and a student with one vocabulary."""
    side.pairs = side.pairs_on_host = torch.arange(len(side.labels))
    return TokenBatch(side, side)


def aligned(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> TokenBatch:
    """The batch of two vocabularies: pairs and byte groups from the places of tokens in the answers (`byte_offsets` [rows, width, 2])."""
    sides = [side_of(inputs) for inputs in (student, teacher)]
    spans: list[list[np.ndarray]] = []
    for inputs, side in zip((student, teacher), sides, strict=True):
        found = inputs["byte_offsets"].flatten(0, 1)[side.labelled + 1].numpy()
        spans.append(np.split(found, np.cumsum(side.sizes.numpy())[:-1]))
    groups: list[list[np.ndarray]] = [[], []]
    pairs: list[list[np.ndarray]] = [[], []]
    begun, first = 0, [0, 0]
    for own, other in zip(*spans, strict=True):
        numbered = byte_groups(other, own)[::-1]
        matched = align(other, own)[::-1]
        for k in (0, 1):
            groups[k].append(np.where(numbered[k] >= 0, numbered[k] + begun, -1))
            pairs[k].append(matched[k] + first[k])
            first[k] += len((own, other)[k])
        begun += int(max(numbered[0].max(initial=-1), -1)) + 1
    for k, side in enumerate(sides):
        side.groups = torch.from_numpy(np.concatenate(groups[k]))
        side.pairs = torch.from_numpy(np.concatenate(pairs[k]))
    sides[0].pairs_on_host = sides[0].pairs
    return TokenBatch(*sides)


def shared(student: Any, teacher: Any) -> SharedVocabulary:
    """Of two tokenizers, or of one that both models have."""
    if student is teacher:
        every = np.arange(len(student))
        return SharedVocabulary(every, every, every, same=True)
    return share_vocabulary(Vocabulary.from_tokenizer(teacher), Vocabulary.from_tokenizer(student))


def our_step(
    method: str, student: Any, size: int, teacher: Teacher | None, vocabulary: SharedVocabulary | None
) -> Callable[[TokenBatch], None]:
    """A whole optimizer step by one of our methods on a batch: the teacher's outputs, forward, backward, AdamW."""
    distiller = Distiller(student, methods.get(method)(), student_size=size, teacher=teacher, shared=vocabulary)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=0.0)

    def step(batch: TokenBatch) -> None:
        student.train()
        distiller.on_step_begin()
        loss = distiller(distiller.fetch(batch))[0]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_rollout(student: Any, tokenizer: Any, texts: list[str], new: int) -> Callable[[], TokenBatch]:
    """Samples of the student after these prompts, as a batch."""
    end = tokenizer.eos_token_id
    sampler = TransformersSampler(student, Vocabulary.from_tokenizer(tokenizer), end)
    prompts = [Prompt(tokenizer(text, add_special_tokens=False)["input_ids"], []) for text in texts]
    numbers = np.random.default_rng(0)

    def sampled() -> TokenBatch:
        samples = sampler.sample(prompts, numbers.random((len(prompts), new)))
        rows = [(prompt.student, sample.ids) for prompt, sample in zip(prompts, samples, strict=True)]
        width = max(len(before) + len(written) for before, written in rows)
        ids = torch.full((len(rows), width), end)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for row, (before, written) in enumerate(rows):
            length = len(before) + len(written)
            ids[row, :length] = torch.tensor([*before, *written])
            labels[row, len(before) : length] = torch.tensor(written)
            mask[row, :length] = 1
        side = side_of({"input_ids": ids, "labels": labels, "attention_mask": mask})
        side.sampled = torch.ones_like(side.labels, dtype=torch.bool)
        return same_tokens(side)

    return sampled
