"""Text that the student writes itself while it is trained: samples that take the place of examples of the data (docs/rollouts.md).

Every example has a random source of its own, which follows from the run's seed, the epoch and the example's number in the data: it
decides whether the example is sampled, and draws the one number that each token of a sample takes. So samples depend on the
student's weights and on nothing else: not on the batch that an example is in, on the number of processes, or on what was drawn
before a run was killed. Prompts are the data's; the teacher gets its own prompt and the same text in its own tokens.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field

from dskd.errors import InputError
from dskd.vllm_setup import INSTALL

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from dskd.methods.base import Method
    from dskd.vocabulary import Vocabulary

# Prompts that are continued together, of like length: enough to keep a device busy, and few enough for their keys and values.
TOGETHER = 64


class RolloutOptions(BaseModel):
    """Which examples the student's own text takes the place of, and how that is sampled."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    share: float = Field(0.5, ge=0.0, le=1.0, description="λ, the share of examples whose response the student writes")
    start_epoch: int = Field(0, ge=0, description="the first epoch, counted from 0, in which it does")
    temperature: float = Field(1.0, gt=0.0, description="divides the student's logits when it samples")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="sample from the most probable tokens that hold this share")
    max_new_tokens: int = Field(128, gt=0, description="where a sample is cut; nothing is then supervised as its end")
    engine: Literal["transformers", "vllm"] = "transformers"
    gpu_memory_utilization: float = Field(
        0.3,
        gt=0.0,
        lt=1.0,
        description="the share of a GPU's memory for vLLM, with weights of its own; no part of an identity",
    )


class RolloutReport(BaseModel):
    """What was sampled, by all processes; seconds are of the first."""

    samples: int
    mean_length: float | None = Field(description="student tokens a sample, its end included")
    ended_share: float | None = Field(description="of the samples, those that ended before max_new_tokens")
    left_out: dict[str, int] = Field(description="samples not used, by reason; the data's example stood in for each")
    seconds: float = Field(description="spent sampling, a part of train_seconds")


# Why a sample is not used. `no prompt`: at most a single token stands before the labels, and without a begin token nobody knows
# whether that is a prompt or the response's first token; nothing is sampled then.
REASONS = ("no prompt", "not text", "special token", "not encodable", "too long")


# In what is logged, beside `rollouts` and `rollout_seconds`: means over the samples of this process.
PROGRESS = {"rollout_length": "tokens", "rollout_ended": "ended"}


class Sample(NamedTuple):
    """What a model wrote: ids, with the end of sequence if it `ended`."""

    ids: list[int]
    ended: bool


class Sampler(Protocol):
    """An engine that writes responses with the student's weights as they are at this moment.

    `precision` makes the context that products are to be in, such as autocast.
    """

    precision: Callable[[], Any]

    def update(self) -> None:
        """Called before the samples of each step: the student's weights have changed."""
        ...

    def sample(self, prompts: Sequence[list[int]], numbers: np.ndarray) -> list[Sample]:
        """A sample for each prompt, of at most as many tokens as `numbers` [prompts, tokens] has, uniform in [0, 1), one each."""
        ...

    def close(self) -> Any:
        """Called when nothing more is to be sampled."""
        ...


def check_rollouts(method: Method, options: RolloutOptions | None, *, cached: bool) -> None:
    """InputError where a method cannot learn from rollouts so, or not without them."""
    if options is None:
        if method.policy == "on":
            raise InputError(f"{method.name}: learns from the student's own text; fix: set rollouts to {{share: 1}}")
        return
    if not method.needs_teacher:
        raise InputError(
            f"rollouts: {method.name} has no teacher to judge the student's own text; fix: remove rollouts, or distil"
        )
    if method.policy == "off":
        raise InputError(f"rollouts: {method.name} learns from the data's text alone; fix: remove rollouts")
    if method.policy == "on" and (options.share < 1 or options.start_epoch > 0):
        raise InputError(
            f"rollouts: {method.name} learns from the student's own text alone; fix: set share to 1 and start_epoch to 0"
        )
    if cached:
        raise InputError(
            "rollouts: a cached signal says nothing about text that is not written yet; "
            "fix: use the teacher itself (teacher_signal: {kind: live})"
        )
    require_engine(options)


def require_engine(options: RolloutOptions) -> None:
    """InputError where what samples is not installed."""
    if options.engine == "vllm" and find_spec("vllm") is None:
        raise InputError(f"rollouts.engine: vLLM is not installed; fix: set it to transformers, or {INSTALL}")


@dataclass(frozen=True)
class Side:
    """How one of the two models reads text. positions: the longest example that it takes; None without a limit."""

    tokenizer: Any
    vocabulary: Vocabulary
    positions: int | None = None


class Rollouts:
    """Puts the student's own text in the place of examples, and keeps count of it.

    `path` is the file that samples are written to, a JSON object a line: step, epoch, example, text, tokens, ended, left_out (why
    the sample was not used, or null). None writes nothing.
    """

    def __init__(
        self,
        options: RolloutOptions,
        sampler: Sampler,
        student: Side,
        teacher: Side,
        *,
        same_vocabulary: bool,
        seed: int,
        path: Path | None = None,
    ) -> None:
        self.options = options
        self.path = path
        self.seconds = 0.0
        self.counts: Counter[str] = Counter()  # samples, tokens, ended, and the reasons of those left out
        self.sampler = sampler
        self._student = student
        self._teacher = teacher
        self._same = same_vocabulary
        self._seed = seed

    def take(self, batches: Sequence[Sequence[dict[str, Any]]], *, epoch: int, step: int) -> list[list[dict[str, Any]]]:
        """Rows of a prepared dataset, each with its number as `example`: some as they are, some with a sample for a response.

        `batches` are those of one optimizer step, all of which have the same weights. Each row says whether it is `sampled`.
        """
        from dskd.collation import SAMPLED

        start = time.perf_counter()
        rows = [{**row, SAMPLED: False} for batch in batches for row in batch]
        chosen: list[int] = []
        numbers: list[np.ndarray] = []
        for k, row in enumerate(rows):
            drawn = self._drawn(epoch, row["example"])
            if drawn is None:
                continue
            if self._has_prompt(row):
                chosen.append(k)
                numbers.append(drawn)
            else:
                self.counts["no prompt"] += 1
        records = []
        for k, sample in zip(chosen, self._samples([rows[k] for k in chosen], numbers), strict=True):
            text, replaced = self._row(rows[k], sample)
            self.counts.update(samples=1, tokens=len(sample.ids), ended=sample.ended)
            if isinstance(replaced, str):
                self.counts[replaced] += 1
            else:
                rows[k] = {**replaced, "example": rows[k]["example"], SAMPLED: True}
            records.append(
                {
                    "step": step,
                    "epoch": epoch,
                    "example": rows[k]["example"],
                    "text": text,
                    "tokens": sample.ids,
                    "ended": sample.ended,
                    "left_out": replaced if isinstance(replaced, str) else None,
                }
            )
        self._write(records)
        self.seconds += time.perf_counter() - start
        rest = iter(rows)
        return [[next(rest) for _ in batch] for batch in batches]

    def progress(self) -> dict[str, float]:
        """How many samples this process has by now, and what they are like."""
        samples = self.counts["samples"]
        means = {name: self.counts[key] / max(samples, 1) for name, key in PROGRESS.items()}
        return {"rollouts": samples, "rollout_seconds": self.seconds, **means}

    def _drawn(self, epoch: int, example: int) -> np.ndarray | None:
        """The numbers that an example's sample takes, one a token; None where it is not sampled."""
        import numpy as np

        source = np.random.default_rng(np.random.SeedSequence([self._seed, epoch, example]))
        if source.random() >= self.options.share or epoch < self.options.start_epoch:
            return None
        return source.random(self.options.max_new_tokens)

    def _has_prompt(self, row: dict[str, Any]) -> bool:
        """Whether the tokens before the labels are a prompt; without one, the first of the response stands there."""
        sides = ("student", self._student), ("teacher", self._teacher)
        return all(
            row[f"{name}_prompt_length"] > 1 or row[f"{name}_ids"][0] in side.vocabulary.special_ids
            for name, side in sides
        )

    def _samples(self, rows: Sequence[dict[str, Any]], numbers: Sequence[np.ndarray]) -> list[Sample]:
        import numpy as np

        prompts = [list(row["student_ids"][: row["student_prompt_length"]]) for row in rows]
        order = sorted(range(len(rows)), key=lambda k: -len(prompts[k]))
        found: dict[int, Sample] = {}
        if rows:
            self.sampler.update()
        for first in range(0, len(order), TOGETHER):
            part = order[first : first + TOGETHER]
            samples = self.sampler.sample([prompts[k] for k in part], np.stack([numbers[k] for k in part]))
            found.update(zip(part, samples, strict=True))
        return [found[k] for k in range(len(rows))]

    def _row(self, row: dict[str, Any], sample: Sample) -> tuple[str, dict[str, Any] | str]:
        """(the sample's text, the row with it as the response, or the reason why it cannot be one)."""
        from dskd.data import Encoded, encode_response, prepared_row, published_pairs, text_of_prompt

        vocabulary = self._student.vocabulary
        ids = sample.ids[: len(sample.ids) - sample.ended]
        if not vocabulary.special_ids.isdisjoint(ids):
            return _text(vocabulary, ids), "special token"
        if not sample.ended and not self._same:
            ids = _whole_characters(vocabulary, ids)
        text = _text(vocabulary, ids)
        prompt = list(row["student_ids"][: row["student_prompt_length"]])
        student = Encoded(
            [*prompt, *ids, *[self._student.tokenizer.eos_token_id] * sample.ended],
            len(prompt),
            _spans(vocabulary, ids),
            ended=sample.ended,
        )
        prompt = list(row["teacher_ids"][: row["teacher_prompt_length"]])
        if self._same:
            # The very tokens that the student wrote, which need not be those that its tokenizer makes of the text.
            response, spans = ids, student.spans
        else:
            if text.encode() != b"".join(vocabulary.written[k] for k in ids):
                return text, "not text"
            side = self._teacher
            before = text_of_prompt(side.tokenizer, side.vocabulary, prompt)
            encoded = encode_response(side.tokenizer, side.vocabulary, prompt, before, text)
            if encoded is None:
                return text, "not encodable"
            response, spans = encoded
            if not side.vocabulary.special_ids.isdisjoint(response):
                return text, "special token"
        teacher = Encoded(
            [*prompt, *response, *[self._teacher.tokenizer.eos_token_id] * sample.ended],
            len(prompt),
            spans,
            ended=sample.ended,
        )
        if not student.labels or not teacher.labels:
            return text, "not text"
        for encoded_side, side in ((student, self._student), (teacher, self._teacher)):
            if side.positions is not None and len(encoded_side.ids) > side.positions:
                return text, "too long"
        made = prepared_row(student, teacher, same_vocabulary=self._same)
        if "student_string_pairs" in row:
            made |= published_pairs(student, teacher, (self._student.tokenizer, self._teacher.tokenizer))
        return text, made

    def _write(self, records: Sequence[dict[str, Any]]) -> None:
        if self.path is None or not records:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _text(vocabulary: Vocabulary, ids: Sequence[int]) -> str:
    return b"".join(vocabulary.written[k] for k in ids).decode(errors="replace")


def _whole_characters(vocabulary: Vocabulary, ids: list[int]) -> list[int]:
    """Without the last tokens where those, and only those, are the beginning of a character that was cut."""
    for dropped in range(min(4, len(ids))):  # a character has at most four bytes
        kept = ids[: len(ids) - dropped]
        try:
            b"".join(vocabulary.written[k] for k in kept).decode()
        except UnicodeDecodeError:
            continue
        return kept
    return ids


def _spans(vocabulary: Vocabulary, ids: Sequence[int]) -> np.ndarray:
    """The bytes that each token covers of the text that the tokens are, int64 [tokens, 2]."""
    import numpy as np

    ends = np.cumsum([0, *(len(vocabulary.written[k]) for k in ids)], dtype=np.int64)
    return np.stack([ends[:-1], ends[1:]], axis=1)


class TransformersSampler:
    """Samples by transformers' own generation, from the very module that is trained, dropout off.

    Ids that stand for nothing (padded rows of the head,
    gaps in the vocabulary) are never drawn; special tokens other than the end of sequence stop a sample.
    """

    def __init__(
        self,
        student: Any,
        vocabulary: Vocabulary,
        end: int,
        options: RolloutOptions,
    ) -> None:
        self.precision: Callable[[], Any] = nullcontext
        self._student = student
        self._end = end
        self._stops = stop_tokens(vocabulary, end)
        self._known = possible_tokens(vocabulary, end)
        self._options = options

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass

    def sample(self, prompts: Sequence[list[int]], numbers: np.ndarray) -> list[Sample]:
        import torch
        from transformers import GenerationConfig

        # An adapter (LoRA) is part of the layers of the model below it.
        model = self._student.get_base_model() if hasattr(self._student, "get_base_model") else self._student
        device = model.get_input_embeddings().weight.device
        width = max(map(len, prompts))
        ids = torch.tensor([[self._end] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        choose = _Choose(
            torch.from_numpy(numbers).to(device),
            width,
            torch.tensor(self._known, device=device),
            self._options.temperature,
            self._options.top_p,
        )
        config = GenerationConfig(
            do_sample=False,  # what is to be drawn, the processor has drawn
            max_new_tokens=numbers.shape[1],
            eos_token_id=self._stops,
            pad_token_id=self._end,
            use_cache=True,
        )
        with _generating(model), self.precision(), torch.no_grad():
            output = model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=[choose]
            )
        return [self._cut(row) for row in output[:, width:].tolist()]

    def _cut(self, ids: list[int]) -> Sample:
        stop = next((k for k, token in enumerate(ids) if token in self._stops), None)
        if stop is None:
            return Sample(ids, ended=False)
        return Sample(ids[: stop + 1], ended=ids[stop] == self._end)


def stop_tokens(vocabulary: Vocabulary, end: int) -> list[int]:
    """The ids that end a sample."""
    return sorted({end} | vocabulary.special_ids)


def possible_tokens(vocabulary: Vocabulary, end: int) -> list[bool]:
    """By id, whether it may be drawn."""
    return [bool(piece) or k == end for k, piece in enumerate(vocabulary.written)]


@contextmanager
def _generating(model: Any) -> Iterator[None]:
    """The model for generation: no dropout, not compiled (every length would be compiled anew), none of its own sampling rules."""
    import torch
    from transformers import GenerationConfig

    training = [module for module in model.modules() if module.training]
    own = model.generation_config
    model.eval()
    # `generate` would fill in what ours leaves open, such as a repetition penalty.
    model.generation_config = GenerationConfig()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        model.generation_config = own
        for module in training:
            module.training = True


@dataclass(frozen=True)
class _Choose:
    """A logits processor that draws each row's next token by a number of that row, and leaves nothing but it to choose."""

    numbers: Tensor  # [rows, tokens]
    width: int  # of the prompts
    known: Tensor  # [vocabulary]
    temperature: float
    top_p: float

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        numbers = self.numbers[:, input_ids.shape[1] - self.width]
        return only_drawn(scores, self.known, numbers, self.temperature, self.top_p)


def only_drawn(scores: Tensor, known: Tensor, numbers: Tensor, temperature: float, top_p: float) -> Tensor:
    """scores [rows, head], known [vocabulary], numbers [rows] -> scores [rows, head]: 0 at the token drawn, -∞ elsewhere."""
    import torch

    possible = scores[:, : len(known)].masked_fill(~known[: scores.shape[1]], -torch.inf)
    tokens = draw(possible, numbers, temperature, top_p)
    return torch.full_like(scores, -torch.inf).scatter_(1, tokens.unsqueeze(1), 0.0)


def draw(logits: Tensor, numbers: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """logits [rows, vocabulary], numbers [rows] in [0, 1) -> tokens [rows]: where the cumulative probability passes the number.

    With `top_p` below 1, of the fewest most probable tokens that hold so much, renormalised. In float64, so that the sums of small
    probabilities hold.
    """
    import torch

    p = (logits.double() / temperature).softmax(-1)
    order = None
    if top_p < 1.0:
        p, order = p.sort(dim=-1, descending=True, stable=True)
        p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)
    sums = p.cumsum(-1)
    total = sums[:, -1:]
    places = torch.searchsorted(sums, numbers.to(p.dtype).unsqueeze(-1) * total, right=True)
    places = torch.minimum(places, (sums < total).sum(-1, keepdim=True))  # rounding may have come up to the total
    return (places if order is None else order.gather(-1, places)).squeeze(-1)
