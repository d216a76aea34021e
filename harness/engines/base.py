"""What an engine is: text in, text out, by the same rules whatever generates the tokens.

An engine gives token ids for token ids. What a model is shown and what counts as its answer is decided here, once: the prompt's
ids, what is kept of a prompt that does not fit, how ids become text, and where a stop string ends it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from dskd.data.preparation import encode_prompt
from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer, require_model_folder
from harness.engines._completion_cache import AnswerStore, block_key
from harness.engines._seeds import sample_seed

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what decoders write for bytes that are no character, or not yet


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens and when to end. Temperature 0 is greedy; top_k 0 and no_repeat_ngram 0 are off.

    `seeds`: each answers a request `samples` times, the first seed first; without any, the engine's own does. The rest is as in
    `harness.protocols`.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    no_repeat_ngram: int = 0
    max_prompt_tokens: int | None = None
    prompt_kept: Literal["first", "last"] = "last"
    seeds: tuple[int, ...] = ()
    samples: int = 1

    @classmethod
    def from_lm_eval(cls, arguments: Mapping[str, Any]) -> Sampling:
        """Read the generation_kwargs of a task. InputError for one that the engines would not honour."""
        rest = dict(arguments)
        until = rest.pop("until", None) or ()
        sample = rest.pop("do_sample", False)
        temperature = float(rest.pop("temperature", None) or (1.0 if sample else 0.0))
        sampling = cls(
            max_new_tokens=int(rest.pop("max_gen_toks", 256)),
            stop=(until,) if isinstance(until, str) else tuple(until),
            temperature=temperature if sample else 0.0,
            top_p=float(rest.pop("top_p", 1.0)),
            top_k=int(rest.pop("top_k", 0)),
            no_repeat_ngram=int(rest.pop("no_repeat_ngram_size", 0)),
            max_prompt_tokens=rest.pop("max_prompt_tokens", None),
            prompt_kept=rest.pop("prompt_kept", "last"),
            seeds=tuple(rest.pop("seeds", ())),
            samples=int(rest.pop("samples", 1)),
        )
        if rest:
            known = (
                "until, max_gen_toks, do_sample, temperature, top_p, top_k, no_repeat_ngram_size, max_prompt_tokens, "
                "prompt_kept, seeds, samples"
            )
            raise InputError(f"generation_kwargs: unknown {', '.join(sorted(rest))}; fix: use only {known}")
        if sampling.max_new_tokens < 1:
            raise InputError("generation_kwargs: max_gen_toks must be at least 1; fix: raise it")
        return sampling


@dataclass(frozen=True)
class Completion:
    """The ids that a model wrote after a prompt, the end-of-sequence id included, and whether it ended by itself.

    `ended` is true at an end-of-sequence id and where a stop string was seen; false where only the limit ended it.
    """

    ids: list[int]
    ended: bool


@dataclass(frozen=True)
class Generation:
    """The answer to one request. `generated_tokens` counts all that the model wrote, also its end of sequence and what was cut."""

    text: str
    finish_reason: Literal["stop", "length"]
    generated_tokens: int
    prompt_tokens: int
    prompt_truncated: bool


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids as a whole: special tokens skipped, no space removed before punctuation."""
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def decode_completion(tokenizer: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> str:
    """The text that the completion adds to the prompt.

    A completion decoded alone loses its first space under SentencePiece, whose decoder strips one at the start of a text; so prompt
    and completion are decoded together and the prompt's own text is taken off. Two things can keep the prompt's text from
    being a prefix of the whole:

    - the prompt ends within a character (a cut prompt can) and the completion goes on with it: the character then belongs to
      the completion;
    - byte fallback decodes a run of byte tokens as one, and a completion that spoils the run (half a character after the byte
      token of a newline) takes the prompt's last characters with it. Then the completion is decoded after a letter instead.
    """
    prompt = decode(tokenizer, prompt_ids)
    whole = decode(tokenizer, [*prompt_ids, *completion_ids])
    for prefix in (prompt, prompt.rstrip(INCOMPLETE)):
        if whole.startswith(prefix):
            return whole[len(prefix) :]
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    prefix, whole = decode(tokenizer, anchor), decode(tokenizer, [*anchor, *completion_ids])
    if not whole.startswith(prefix):
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer's decoder changes text that stands before a completion, so an answer "
            "cannot be told from its prompt; fix: use a byte-level or SentencePiece tokenizer"
        )
    return whole[len(prefix) :]


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the earliest of the stop strings, and whether there was one."""
    ends = [position for string in stop if string and (position := text.find(string)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def fit_prompt(
    ids: list[int], room: int, bos_token_id: int | None, kept: Literal["first", "last"] = "last"
) -> tuple[list[int], bool]:
    """At most `room` ids of a prompt, and whether some were dropped.

    The end of a prompt asks the question, so the end is kept unless a protocol says otherwise; and the begin token, where the
    prompt has one, because models such as Gemma write nonsense without it.
    """
    if len(ids) <= room:
        return ids, False
    if kept == "first":
        return ids[:room], True
    if ids[0] == bos_token_id and room > 1:
        return [ids[0], *ids[-(room - 1) :]], True
    return ids[-room:], True


def context_length(config: Any) -> int | None:
    """How many tokens a model can attend to, or None where its configuration sets no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def eos_token_ids(model: Path, tokenizer: Any) -> list[int]:
    """The ids that end an answer: the tokenizer's, and those of the model's generation_config.json."""
    from transformers import GenerationConfig

    ids = {tokenizer.eos_token_id}
    if (model / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(model, local_files_only=True).eos_token_id
        ids.update(configured if isinstance(configured, list) else [configured])
    return sorted(id_ for id_ in ids if id_ is not None)


def _item(request: Instance, position: int) -> str:
    """What a request asks: an item of a task by its id, or the request's place among those that have none."""
    return f"{request.task_name}/{request.doc.get('id', position if request.doc_id is None else request.doc_id)}"


class Engine(LM):
    """A model that answers requests, as lm-eval's `LM`.

    A subclass is a file `harness/engines/<name>.py` that exports it as `ENGINE`, and implements `unavailable`, `block_size` and
    `_generate`. `preference` orders the engines for "auto". After `generate_until`, `generations` holds a `Generation` for each
    request, in order; `on_finished`, where set, is called with the number of requests that have just been finished, and `answers`,
    where set, keeps what was answered (`harness.engines._completion_cache`).
    """

    name: ClassVar[str]
    preference: ClassVar[int]

    def __init__(self, model: Path, *, seed: int, max_batch_size: int | None, max_length: int | None) -> None:
        from transformers import AutoConfig

        super().__init__()
        require_model_folder(model)
        self.model_folder = model
        self.tokenizer = load_tokenizer(model)
        self.config = AutoConfig.from_pretrained(model, local_files_only=True)
        self.eos_token_ids = eos_token_ids(model, self.tokenizer)
        self.context = min((n for n in (context_length(self.config), max_length) if n is not None), default=None)
        self.seed = seed
        self.max_batch_size = max_batch_size
        self.generations: list[Generation] = []
        self.on_finished: Callable[[int], None] | None = None
        self.answers: AnswerStore | None = None

    @classmethod
    @abstractmethod
    def unavailable(cls, model: Path) -> str | None:
        """Why this engine cannot run the model on this machine and what to do about it, or None if it can."""

    @property
    @abstractmethod
    def block_size(self) -> int:
        """How many prompts are answered together, at most."""

    @abstractmethod
    def _generate(self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """Continue each prompt of a block; `seeds` are for random numbers, one a prompt, which nothing else may decide.

        Calls `_report` as prompts are finished. May end early at a stop string; the text is cut by `generate_until`.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the model and its memory. Close an engine before making the next one in the same process."""

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The answer to each request, in order. InputError where a model's context has no room for prompt and answer.

        A request that stands there several times gets as many answers, each with a seed of its own.
        """
        by_sampling: dict[Sampling, list[int]] = {}
        all_seeds = self._seeds(requests)
        for index, request in enumerate(requests):
            by_sampling.setdefault(Sampling.from_lm_eval(request.args[1]), []).append(index)
        generations: dict[int, Generation] = {}
        for sampling, indices in by_sampling.items():
            prompts = [self._encode(requests[index].args[0], sampling) for index in indices]
            completions = self._in_blocks(
                [ids for ids, _ in prompts], sampling, [all_seeds[index] for index in indices]
            )
            for index, (ids, truncated), completion in zip(indices, prompts, completions, strict=True):
                generations[index] = self._finish(ids, truncated, completion, sampling)
        self.generations = [generations[index] for index in range(len(requests))]
        return [generation.text for generation in self.generations]

    def answer(
        self, texts: Sequence[str], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> list[tuple[list[int], Completion, Generation]]:
        """What `generate_until` makes of these texts, with the ids of prompts and completions. `seeds`: one a text."""
        prompts = [self._encode(text, sampling) for text in texts]
        completions = self._in_blocks(
            [ids for ids, _ in prompts], sampling, seeds or range(self.seed, self.seed + len(texts))
        )
        return [
            (ids, completion, self._finish(ids, truncated, completion, sampling))
            for (ids, truncated), completion in zip(prompts, completions, strict=True)
        ]

    def _seeds(self, requests: Sequence[Instance]) -> list[int]:
        """The seed of each answer, by its generation seed, its item and its number among the answers to that item."""
        asked: Counter[str] = Counter()
        seeds = []
        for position, request in enumerate(requests):
            sampling = Sampling.from_lm_eval(request.args[1])
            item = _item(request, position)
            generation_seeds = sampling.seeds or (self.seed,)
            which = min(asked[item] // sampling.samples, len(generation_seeds) - 1)
            seeds.append(sample_seed(generation_seeds[which], item, asked[item] - which * sampling.samples))
            asked[item] += 1
        return seeds

    def _in_blocks(self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        """Answer block by block, or read what an earlier attempt has answered."""
        # Longest first: the block that needs the most memory fails at once or not at all.
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        completions: dict[int, Completion] = {}
        for start in range(0, len(order), self.block_size):
            block = order[start : start + self.block_size]
            asked, numbers = [prompts[index] for index in block], [seeds[index] for index in block]
            key = block_key(asked, sampling, numbers)
            kept = self.answers.get(key) if self.answers is not None else None
            if kept is None:
                answered = self._generate(asked, sampling, numbers)
                if self.answers is not None:
                    self.answers.put(key, answered)
            else:
                answered = [Completion(**entry) for entry in kept]
                self._report(len(block))
            completions.update(zip(block, answered, strict=True))
        return [completions[index] for index in range(len(prompts))]

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not offered: this harness evaluates by generation."""
        raise InputError(
            "task of output_type loglikelihood or multiple_choice: this harness evaluates by generation; "
            "fix: set output_type: generate_until in its task.yaml"
        )

    def loglikelihood_rolling(self, requests: list[Instance]) -> NoReturn:
        """Not offered: this harness evaluates by generation."""
        raise InputError(
            "task of output_type loglikelihood_rolling: this harness evaluates by generation; "
            "fix: set output_type: generate_until in its task.yaml"
        )

    def _encode(self, text: str, sampling: Sampling) -> tuple[list[int], bool]:
        ids = encode_prompt(self.tokenizer, text)
        if not ids:
            # Nothing to condition on: a model starts from its begin or, as GPT-2 does, its end token.
            start = self.tokenizer.bos_token_id
            ids = [self.tokenizer.eos_token_id if start is None else start]
        room = sampling.max_prompt_tokens or len(ids)
        if self.context is not None:
            room = min(room, self.context - sampling.max_new_tokens)
        if room < 1:
            raise InputError(
                f"{self.model_folder / 'config.json'}: a context of {self.context} tokens has no room for a prompt and "
                f"{sampling.max_new_tokens} new tokens; fix: lower max_new_tokens of the task"
            )
        return fit_prompt(ids, room, self.tokenizer.bos_token_id, sampling.prompt_kept)

    def _finish(self, prompt: list[int], truncated: bool, completion: Completion, sampling: Sampling) -> Generation:
        text, stopped = cut_at_stop(decode_completion(self.tokenizer, prompt, completion.ids), sampling.stop)
        return Generation(
            text=text,
            finish_reason="stop" if stopped or completion.ended else "length",
            generated_tokens=len(completion.ids),
            prompt_tokens=len(prompt),
            prompt_truncated=truncated,
        )

    def _report(self, finished: int) -> None:
        if self.on_finished is not None and finished:
            self.on_finished(finished)
