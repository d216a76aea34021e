"""A teacher's responses to the prompts of a training set: the data of sequence-level distillation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Annotated, Any

import dskd.data
from dskd.data.options import Takes, takes_of
from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import prompt_text, template_of
from harness import evaluation
from harness.costs.formulas import teacher_work
from harness.costs.needs import Generation, generation_needs, unknown_needs
from harness.costs.resources import Resources
from harness.costs.work import Device, Work
from harness.engines._completion_cache import CompletionCache
from harness.engines._seeds import sample_seed
from harness.engines._types import Sampling
from harness.responses.prompts import Asked, answered_row, asked_of
from harness.responses.requests import askable
from harness.runs.job_context import JobContext
from harness.runs.store import write_jsonl_atomic
from harness.steps.base import NOT_IDENTITY, OMIT_NONE, ModelInput, Of, Step, if_known
from harness.steps.data import Examples, read_examples
from harness.steps.libraries import MODELS

_BLOCK = 1024  # responses that are made before what there is goes to the disk
_KEYS = ("prompt", "instruction", "input", "output")
_CONVERSATION = ("messages", "tools", "split_reasoning")


class TeacherResponses(Step):
    """The prompts of a training set with the teacher's own responses.

    Left out and counted are responses that did not end by themselves, because the end of sequence is trained too, empty ones, and
    those to prompts that do not fit into the teacher's context. A response is the answer, without the reasoning before it. Of a
    conversation the last turn is asked for, and kept with its reasoning; context that the teacher's template does not take is not asked.

    Attributes:
        samples: Responses to each prompt, one after another in the product; None is one.
    """

    kind, version, place, product = "teacher-responses", 2, "answers", "answers.jsonl"  # as in older runs

    examples: Of[Examples]
    limit: int | None
    teacher: Of[ModelInput]
    max_new_tokens: int
    temperature: float
    samples: Annotated[int | None, OMIT_NONE] = None
    engine: str
    dtype: str
    seed: int
    max_batch_size: Annotated[int | None, NOT_IDENTITY] = None
    parts: Annotated[int, NOT_IDENTITY] = 1
    tensor_parallel: Annotated[int, NOT_IDENTITY] = 1

    @property
    def name(self) -> str:
        """What its examples are called in records."""
        return f"{self.examples.name}, answered by {self.teacher.name}"

    def takes(self, root: Path) -> Takes:
        """What the teacher is asked by, and its responses are written as."""
        return takes_of(template_of(load_tokenizer(self.teacher.path(root))))

    def estimate(self, device: Device) -> list[Work]:
        """Responses are taken to be as long as the data's."""
        what, data = f"{self.teacher.name} to {self.examples.name}", self.examples.lengths(self.limit)
        data = replace(data, examples=data.examples * (self.samples or 1))
        return [teacher_work(self.kind, what, device, self.teacher.shape, self.dtype, data)]

    @property
    def libraries(self) -> tuple[str, ...]:
        return MODELS

    def resources(self) -> Resources:
        shape, gpus = if_known(lambda: self.teacher.shape), self.parts * self.tensor_parallel
        if shape is None:
            return unknown_needs(gpus, processes=self.parts)
        data = if_known(lambda: self.examples.lengths(self.limit))
        asked = [Generation(None if data is None else data.examples * (self.samples or 1), self.max_new_tokens)]
        spread = {"parts": self.parts, "tensor_parallel": self.tensor_parallel}
        return generation_needs(shape, self.dtype, asked, batch=self.max_batch_size, **spread)

    def run(self, job: JobContext) -> None:
        """Make the responses; prompts that were answered before a kill are not asked again. InputError where nothing is left."""
        tokenizer = load_tokenizer(self.teacher.path(job.root))
        takes = takes_of(template_of(tokenizer))
        samples = self.samples or 1
        path, _ = read_examples(self.examples, job.root, job.folder, takes, self.limit)
        items = dskd.data.iter_examples(path, takes, limit=self.limit)
        prompts, unasked = askable([asked_of(item) for item in items], tokenizer)
        folder = job.folder / "blocks"
        folder.mkdir(exist_ok=True)
        numbered = [(number, sample) for number in range(len(prompts)) for sample in range(samples)]
        blocks = {first: folder / f"{first:09}.jsonl" for first in range(0, len(numbered), _BLOCK)}
        missing = {first: block for first, block in blocks.items() if not block.is_file()}
        if missing:
            self._respond(job, prompts, numbered, tokenizer, missing)
        responses = [json.loads(line) for block in blocks.values() for line in block.open(encoding="utf-8")]
        is_usable = [bool(row["ended"] and row["output"] and not row["prompt_truncated"]) for row in responses]
        usable = list(compress(responses, is_usable))
        answered = {number for number, _ in compress(numbered, is_usable)}
        report = {
            "prompts": len(prompts),
            **({"not_asked": unasked} if unasked else {}),
            **({"samples": samples} if samples > 1 else {}),
            "kept": len(usable),
            "without_text": len(prompts) - len(answered),
            "without_end": sum(not row["ended"] for row in responses),
            "empty": sum(row["ended"] and not row["output"] for row in responses),
            "prompt_too_long": sum(row["prompt_truncated"] for row in responses),
            "generated_tokens": sum(row["generated_tokens"] for row in responses),
        }
        print(json.dumps(report, indent=2), flush=True)
        if not usable:
            raise InputError(
                f"{self.teacher.path(job.root)}: none of its {len(numbered):,} responses has an end within {self.max_new_tokens} "
                "tokens; fix: raise max_new_tokens of the method that learns from them, or train the teacher on such responses"
            )
        write_jsonl_atomic(self.path(job.root), map(_row, usable))
        cost = job.cost(tokens=report["generated_tokens"], teacher_examples=len(prompts))
        job.finish(job.output, report=report, cost=cost)
        shutil.rmtree(folder)

    def _respond(
        self,
        job: JobContext,
        prompts: Sequence[Asked],
        numbered: Sequence[tuple[int, int]],
        tokenizer: Any,
        missing: Mapping[int, Path],
    ) -> None:
        """Answer the blocks that begin at these places.

        Each sample has random numbers of its own, by the number of its prompt and its own, so a resumed job says the same.
        """
        of_prompts = [prompt_text(tokenizer, prompt) for prompt in prompts]
        longest = max(max(1, len(dskd.data.encode_prompt(tokenizer, text))) for text in of_prompts)
        texts = [of_prompts[number] for number, _ in numbered]
        sampling = Sampling(self.max_new_tokens, temperature=self.temperature)
        # "None" is part of every draw: with another name the same teacher would give other responses.
        seeds = [sample_seed(self.seed, f"None/{number}", sample) for number, sample in numbered]
        engine = evaluation.open_engine(
            self.engine,
            self.teacher.path(job.root),
            seed=self.seed,
            max_batch_size=self.max_batch_size,
            max_length=longest + self.max_new_tokens,
            dtype=self.dtype,
            parts=self.parts,
            tensor_parallel=self.tensor_parallel,
        )
        done = len(texts) - sum(len(texts[first : first + _BLOCK]) for first in missing)

        def finished(count: int) -> None:
            nonlocal done
            done += count
            job.progress.advance(f"responses by {engine.name}", done, len(texts))

        engine.on_finished = finished
        engine.before_block = partial(job.stop_here, "after the responses that it had finished")
        # A block takes long where the teacher is slow: what the engine finishes of it stays as well.
        engine.cache = CompletionCache(job.folder / "blocks" / "answers.cache")
        try:
            for first, path in missing.items():
                block = slice(first, first + _BLOCK)
                completions = engine.complete(texts[block], sampling, seeds[block])
                rows = [
                    {
                        **answered_row(prompts[number], completion.text, completion.reasoning),
                        "output": completion.text,
                        "ended": completion.finish_reason == "stop" and completion.reasoning_ended,
                        **({} if completion.reasoning is None else {"reasoning": completion.reasoning}),
                        "prompt_truncated": completion.prompt_truncated,
                        "generated_tokens": len(completion.ids),
                    }
                    for (number, _), completion in zip(numbered[block], completions, strict=True)
                ]
                write_jsonl_atomic(path, rows)
                engine.cache.remove()
        finally:
            engine.close()


def _row(response: Mapping[str, Any]) -> dict[str, Any]:
    """An example of a training set, from what is kept of a response."""
    keys = _CONVERSATION if "messages" in response else _KEYS
    return {key: response[key] for key in keys if key in response}
