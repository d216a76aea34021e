"""Text that the student writes itself while it is trained: samples that take the place of examples of the data (docs/rollouts.md).

Of a conversation the student writes the last turn, after what the data says before it.

Every example has a random source of its own, by the run's seed, the epoch and its number: it decides whether the example is
sampled, and draws the one number that each token takes. So samples depend on the student's weights and on nothing else.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dskd.data.collator import SAMPLED, WRITTEN
from dskd.data.rows import last_prompt_length
from dskd.rollouts.guards import PARTS_OF_NAT, Guards, repetitions
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.replay_buffer import Choice, Replay
from dskd.rollouts.sample_rows import ModelText, has_prompt, row_of_sample
from dskd.rollouts.sampler import Prompt, Sample, Sampler

Batches = Sequence[Sequence[dict[str, Any]]]

# In what is logged, beside `rollouts` and `rollout_seconds`: means over the samples of this process.
PROGRESS = {"rollout_length": "tokens", "rollout_ended": "ended"}
# The same for texts that are drawn again: how many this process has, φ, and the last loss on the held-out examples.
REPLAY_PROGRESS = ("rollouts_replayed", "rollout_threshold", "validation_loss")


# Of a row with the student's text: the step before which the weights that wrote it were those of the student.
VERSION = "version"


@dataclass(frozen=True)
class StepText:
    """What was written for an optimizer step.

    Attributes:
        version: The step before which the weights that wrote it were those of the student.
        batches: Rows of each micro-batch of this process, texts in their places.
        records: The lines of rollouts.jsonl.
        counts: What the step adds to the counts of the report.
    """

    version: int
    batches: list[list[dict[str, Any]]]
    records: list[dict[str, Any]]
    counts: dict[str, int]


@dataclass
class _Draft:
    """Rows of a step that are still to get their texts, by their place: the random numbers of each, and those that draw an old one."""

    batches: Batches
    rows: list[dict[str, Any]]
    chosen: dict[int, np.ndarray] = field(default_factory=dict)
    again: dict[int, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


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
        self.guards = Guards()
        self.sampler = sampler
        self.replay = None if options.replay is None else Replay(options.replay, options.share)
        # The rows of all processes from those of this one; every process calls it at every step.
        self.gather: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
        # Adds to rows what the weights think of their text now, where they may be others when the rows are trained on.
        self.note_weights: Callable[[list[dict[str, Any]]], Any] = len
        self._student = student
        self._teacher = teacher
        self._same = same_vocabulary
        self._seed = seed
        self._mix_in_offpolicy = mix_in_offpolicy

    def take(self, batches: Batches, *, epoch: int, step: int) -> list[list[dict[str, Any]]]:
        """Rows of one optimizer step, each with its number as `example`: some as they are, some with a sample for a response.

        With `mix_in_offpolicy`, every row is there as it is, and those with a sample come after them.
        """
        return self.use(self.write({step: batches}, epoch=epoch)[step])

    def write(self, steps: Mapping[int, Batches], *, epoch: int) -> dict[int, StepText]:
        """The rows of one or several steps of an epoch, with text by the weights as they are now, before the first of them."""
        start = time.perf_counter()
        drafts = {step: self._draft(batches, epoch, step) for step, batches in steps.items()}
        asked = [(draft.rows[k], numbers) for draft in drafts.values() for k, numbers in draft.chosen.items()]
        samples = iter(self._samples([row for row, _ in asked], [numbers for _, numbers in asked]))
        texts: dict[int, StepText] = {}
        for step, draft in drafts.items():
            version = min(steps)
            own = [self._put(draft, k, next(samples), epoch, step, version) for k in draft.chosen]
            if self.options.may_be_stale:
                self.note_weights(draft.rows)
                known = [value for row in draft.rows for value in row.get(WRITTEN, ())]
                draft.counts.update(known=len(known), log_q=round(math.fsum(known) * PARTS_OF_NAT))
            if self.replay is not None:
                self._take_again(self.replay, draft)
            texts[step] = StepText(version, self._batches(draft), own, dict(draft.counts))
        self.seconds += time.perf_counter() - start
        return texts

    def use(self, text: StepText) -> list[list[dict[str, Any]]]:
        """The rows of a step that comes now; what was written for it is logged and counted."""
        self.counts.update(text.counts)
        if self.path is not None and text.records:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in text.records))
        return text.batches

    def _draft(self, batches: Batches, epoch: int, step: int) -> _Draft:
        """What is to be written for a step."""
        draft = _Draft(batches, [{**row, SAMPLED: False} for batch in batches for row in batch])
        for k, row in enumerate(draft.rows):
            choice, source = self._choice(epoch, row["example"], step)
            if choice == "write" and self._has_prompt(row):
                draft.chosen[k] = source.random(self.options.max_new_tokens)
                if self.replay is not None and not self.replay.adaptive:
                    draft.again[k] = source.random()
            elif choice == "write":
                draft.counts["no prompt"] += 1
            elif choice == "replay":
                draft.again[k] = source.random()
        return draft

    def _put(self, draft: _Draft, k: int, sample: Sample, epoch: int, step: int, version: int) -> dict[str, Any]:
        """Put a sample in the place of row k; the line that is logged of it."""
        row = draft.rows[k]
        text, replaced = self._row(row, sample)
        ngrams, repeated = repetitions(sample.ids)
        draft.counts.update(samples=1, tokens=len(sample.ids), ended=sample.ended, age=step - version)
        draft.counts.update(ngrams=ngrams, repeated=repeated)
        left_out = replaced if isinstance(replaced, str) else None
        if isinstance(replaced, str):
            draft.counts[replaced] += 1
        else:
            draft.rows[k] = {**replaced, "example": row["example"], SAMPLED: True, VERSION: version}
        record = {"step": step, "version": version, "epoch": epoch, "example": row["example"], "text": text}
        return record | {"tokens": sample.ids, "ended": sample.ended, "left_out": left_out}

    def _batches(self, draft: _Draft) -> list[list[dict[str, Any]]]:
        """The rows of a step in the batches that they came in."""
        rest = iter(draft.rows)
        taken = [[next(rest) for _ in batch] for batch in draft.batches]
        if not self._mix_in_offpolicy:
            return taken
        kept = [[{**row, SAMPLED: False} for row in batch] for batch in draft.batches]
        return [own + [row for row in batch if row[SAMPLED]] for own, batch in zip(kept, taken, strict=True)]

    def _take_again(self, replay: Replay, draft: _Draft) -> None:
        """Keep what was written, and put texts of the buffer in their places."""
        rows = draft.rows
        written = [row for row in rows if row[SAMPLED]]
        if not replay.adaptive:  # what is drawn may be what was just written
            replay.keep(self.gather(written))
        drawn = {k: row for k, number in draft.again.items() if (row := replay.draw(number)) is not None}
        if replay.adaptive:
            replay.keep(self.gather(written))
        for k, row in drawn.items():
            rows[k] = row
        sampled = sum(row[SAMPLED] for row in rows)
        draft.counts.update(written=sampled - len(drawn), replayed=len(drawn), data=len(rows) - sampled)

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
        size = self.sampler.prompts_at_once or max(len(order), 1)
        for first in range(0, len(order), size):
            part = order[first : first + size]
            samples = self.sampler.sample([prompts[k] for k in part], np.stack([numbers[k] for k in part]))
            found.update(zip(part, samples, strict=True))
        return [found[k] for k in range(len(rows))]

    def _row(self, row: dict[str, Any], sample: Sample) -> tuple[str, dict[str, Any] | str]:
        """(the sample's text, the row with it as the response, or the reason why it cannot be one)."""
        return row_of_sample(row, sample, self._student, self._teacher, same_vocabulary=self._same)
