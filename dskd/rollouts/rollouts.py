"""Text that the student writes itself while it is trained: samples that take the place of examples of the data (docs/rollouts.md).

Of a conversation the student writes the last turn, after what the data says before it.

Every example has a random source of its own, by the run's seed, the epoch and its number: it decides whether the example is
sampled, and draws the one number that each token takes. So samples depend on the student's weights and on nothing else.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dskd.data.collator import SAMPLED
from dskd.data.encoding import Encoded, encode_response, prepared_row, text_of_prompt
from dskd.data.rows import last_prompt_length
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.replay_buffer import Choice, Replay
from dskd.rollouts.sampler import PROMPTS_AT_ONCE, Prompt, Sample, Sampler
from dskd.tokenization.vocabulary import Vocabulary

# Why a sample is not used. `no prompt`: at most a single token stands before the labels, and without a begin token nobody knows
# whether that is a prompt or the response's first token; nothing is sampled then.
REASONS = ("no prompt", "not text", "special token", "not encodable", "too long")

# In what is logged, beside `rollouts` and `rollout_seconds`: means over the samples of this process.
PROGRESS = {"rollout_length": "tokens", "rollout_ended": "ended"}
# The same for texts that are drawn again: how many this process has, φ, and the last loss on the held-out examples.
REPLAY_PROGRESS = ("rollouts_replayed", "rollout_threshold", "validation_loss")


@dataclass(frozen=True)
class ModelText:
    """How one of the two models reads text. positions: the longest example that it takes; None without a limit."""

    tokenizer: Any
    vocabulary: Vocabulary
    positions: int | None = None

    def encoded(self, prompt: list[int], response: list[int], spans: np.ndarray, ended: bool) -> Encoded:
        ids = [*prompt, *response, *[self.tokenizer.eos_token_id] * ended]
        return Encoded(ids, len(prompt), spans, ended=ended)


class Rollouts:
    """Puts the student's own text in the place of examples, and keeps count of it; `path` is the file of the samples, if any."""

    def __init__(
        self,
        options: RolloutOptions,
        sampler: Sampler,
        student: ModelText,
        teacher: ModelText,
        *,
        same_vocabulary: bool,
        seed: int,
        mix_in_offpolicy: bool = False,
        path: Path | None = None,
    ) -> None:
        self.options = options
        self.path = path
        self.seconds = 0.0
        # samples, tokens, ended, and the reasons of those left out; with replay: written, replayed, data
        self.counts: Counter[str] = Counter()
        self.sampler = sampler
        self.replay = None if options.replay is None else Replay(options.replay, options.share)
        # The rows of all processes from those of this one; every process calls it at every step.
        self.gather: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
        self._student = student
        self._teacher = teacher
        self._same = same_vocabulary
        self._seed = seed
        self._mix_in_offpolicy = mix_in_offpolicy

    def take(self, batches: Sequence[Sequence[dict[str, Any]]], *, epoch: int, step: int) -> list[list[dict[str, Any]]]:
        """Rows of one optimizer step, each with its number as `example`: some as they are, some with a sample for a response.

        With `mix_in_offpolicy`, every row is there as it is, and those with a sample come after them.
        """
        start = time.perf_counter()
        rows = [{**row, SAMPLED: False} for batch in batches for row in batch]
        chosen: list[int] = []
        numbers: list[np.ndarray] = []
        again: dict[int, float] = {}  # rows that get a text of the buffer, and the number that it is drawn by
        for k, row in enumerate(rows):
            choice, source = self._choice(epoch, row["example"], step)
            if choice == "write" and self._has_prompt(row):
                chosen.append(k)
                numbers.append(source.random(self.options.max_new_tokens))
                if self.replay is not None and not self.replay.adaptive:
                    again[k] = source.random()
            elif choice == "write":
                self.counts["no prompt"] += 1
            elif choice == "replay":
                again[k] = source.random()
        records = []
        for k, sample in zip(chosen, self._samples([rows[k] for k in chosen], numbers), strict=True):
            text, replaced = self._row(rows[k], sample)
            self.counts.update(samples=1, tokens=len(sample.ids), ended=sample.ended)
            if isinstance(replaced, str):
                self.counts[replaced] += 1
            else:
                rows[k] = {**replaced, "example": rows[k]["example"], SAMPLED: True}
            record = {"step": step, "epoch": epoch, "example": rows[k]["example"], "text": text, "tokens": sample.ids}
            left_out = replaced if isinstance(replaced, str) else None
            records.append(record | {"ended": sample.ended, "left_out": left_out})
        if self.path is not None and records:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        if self.replay is not None:
            self._take_again(self.replay, rows, again)
        self.seconds += time.perf_counter() - start
        rest = iter(rows)
        taken = [[next(rest) for _ in batch] for batch in batches]
        if not self._mix_in_offpolicy:
            return taken
        kept = [[{**row, SAMPLED: False} for row in batch] for batch in batches]
        return [own + [row for row in batch if row[SAMPLED]] for own, batch in zip(kept, taken, strict=True)]

    def _take_again(self, replay: Replay, rows: list[dict[str, Any]], again: dict[int, float]) -> None:
        """Keep what was written, and put texts of the buffer in their places."""
        written = [row for row in rows if row[SAMPLED]]
        if not replay.adaptive:  # what is drawn may be what was just written
            replay.keep(self.gather(written))
        drawn = {k: row for k, number in again.items() if (row := replay.draw(number)) is not None}
        if replay.adaptive:
            replay.keep(self.gather(written))
        for k, row in drawn.items():
            rows[k] = row
        sampled = sum(row[SAMPLED] for row in rows)
        self.counts.update(written=sampled - len(drawn), replayed=len(drawn), data=len(rows) - sampled)

    def progress(self) -> dict[str, float]:
        """How many samples this process has by now, and what they are like."""
        samples = self.counts["samples"]
        means = {name: self.counts[key] / max(samples, 1) for name, key in PROGRESS.items()}
        if self.replay is not None:
            known = self.counts["replayed"], self.replay.threshold, *self.replay.validation_losses[-1:]
            means |= dict(zip(REPLAY_PROGRESS, known, strict=False))
        return {"rollouts": samples, "rollout_seconds": self.seconds, **means}

    def _choice(self, epoch: int, example: int, step: int) -> tuple[Choice, np.random.Generator]:
        """What an example gets, and its random source, of which the first number decided that."""
        source = np.random.default_rng(np.random.SeedSequence([self._seed, epoch, example]))
        number = source.random()
        if epoch < self.options.start_epoch:
            return "data", source
        if self.replay is not None:
            return self.replay.choose(number, step), source
        return "write" if number < self.options.share else "data", source

    def _has_prompt(self, row: dict[str, Any]) -> bool:
        return has_prompt(row, self._student, self._teacher)

    def _prompt(self, row: dict[str, Any]) -> Prompt:
        return Prompt(*(list(row[f"{side}_ids"][: last_prompt_length(row, side)]) for side in ("student", "teacher")))

    def _samples(self, rows: Sequence[dict[str, Any]], numbers: Sequence[np.ndarray]) -> list[Sample]:
        prompts = [self._prompt(row) for row in rows]
        order = sorted(range(len(rows)), key=lambda k: -len(prompts[k].student))
        found: dict[int, Sample] = {}
        if rows:
            self.sampler.update()
        for first in range(0, len(order), PROMPTS_AT_ONCE):
            part = order[first : first + PROMPTS_AT_ONCE]
            samples = self.sampler.sample([prompts[k] for k in part], np.stack([numbers[k] for k in part]))
            found.update(zip(part, samples, strict=True))
        return [found[k] for k in range(len(rows))]

    def _row(self, row: dict[str, Any], sample: Sample) -> tuple[str, dict[str, Any] | str]:
        """(the sample's text, the row with it as the response, or the reason why it cannot be one)."""
        return row_of_sample(row, sample, self._student, self._teacher, same_vocabulary=self._same)


def row_of_sample(
    row: dict[str, Any], sample: Sample, student: ModelText, teacher: ModelText, *, same_vocabulary: bool
) -> tuple[str, dict[str, Any] | str]:
    """A row with a sample as its response.

    Args:
        row: Of a prepared dataset.
        sample: What the student wrote after its prompt.
        student, teacher: How the two models read text.
        same_vocabulary: Whether their vocabularies are one.

    Returns:
        (the sample's text, the row, or the reason why the sample cannot be one).
    """
    vocabulary = student.vocabulary
    ids = sample.ids[: len(sample.ids) - sample.ended]
    if not vocabulary.special_ids.isdisjoint(ids):
        return _text(vocabulary, ids), "special token"
    if not sample.ended and not same_vocabulary:
        ids = whole_characters(vocabulary, ids)
    text = _text(vocabulary, ids)
    prompt = list(row["student_ids"][: last_prompt_length(row, "student")])
    own = student.encoded(prompt, ids, _spans(vocabulary, ids), sample.ended)
    prompt = list(row["teacher_ids"][: last_prompt_length(row, "teacher")])
    if same_vocabulary:
        # The very tokens that the student wrote, which need not be those that its tokenizer makes of the text.
        response, spans = ids, own.spans
    else:
        if text.encode() != b"".join(vocabulary.token_bytes[k] for k in ids):
            return text, "not text"
        reader = teacher.tokenizer, teacher.vocabulary
        encoded = encode_response(*reader, prompt, text_of_prompt(*reader, prompt), text)
        if encoded is None:
            return text, "not encodable"
        response, spans = encoded
        if not teacher.vocabulary.special_ids.isdisjoint(response):
            return text, "special token"
    of_teacher = teacher.encoded(prompt, response, spans, sample.ended)
    if not own.labels or not of_teacher.labels:
        return text, "not text"
    for encoded_side, side in ((own, student), (of_teacher, teacher)):
        if side.positions is not None and len(encoded_side.ids) > side.positions:
            return text, "too long"
    return text, prepared_row(own, of_teacher, same_vocabulary=same_vocabulary)


def has_prompt(row: dict[str, Any], student: ModelText, teacher: ModelText) -> bool:
    """Whether the tokens before the labels are a prompt; without one, the first of the response stands there."""
    return all(
        last_prompt_length(row, name) > 1 or row[f"{name}_ids"][0] in side.vocabulary.special_ids
        for name, side in (("student", student), ("teacher", teacher))
    )


def _text(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    return b"".join(vocabulary.token_bytes[k] for k in ids).decode(errors="replace")


def whole_characters(vocabulary: Vocabulary, ids: list[int]) -> list[int]:
    """Without the last tokens where those, and only those, are the beginning of a character that was cut."""
    for dropped in range(min(4, len(ids))):  # a character has at most four bytes
        kept = ids[: len(ids) - dropped]
        try:
            b"".join(vocabulary.token_bytes[k] for k in kept).decode()
        except UnicodeDecodeError:
            continue
        return kept
    return ids


def _spans(vocabulary: Vocabulary, ids: Sequence[int]) -> np.ndarray:
    """The bytes that each token covers of the text that the tokens are, int64 [tokens, 2]."""
    ends = np.cumsum([0, *(len(vocabulary.token_bytes[k]) for k in ids)], dtype=np.int64)
    return np.stack([ends[:-1], ends[1:]], axis=1)
