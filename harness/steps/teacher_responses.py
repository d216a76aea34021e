"""Has a teacher answer the prompts of a training set: the data of sequence-level distillation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Instruction, prompt_text
from harness.runs.job_context import JobContext
from harness.runs.store import write_jsonl_atomic

_BLOCK = 1024  # prompts that are answered before what there is goes to the disk


def run(job: JobContext) -> None:
    """Make `answers.jsonl` in the job's folder; prompts that were answered before a kill are not asked again.

    Left out and counted are answers that did not end by themselves, because the end of sequence is trained too, empty ones, and
    those to prompts that do not fit into the teacher's context. InputError where nothing is left.
    """
    (output,) = job.spec.outputs
    arguments = job.arguments
    prompts = _prompts(job)
    blocks = job.folder / "blocks"
    blocks.mkdir(exist_ok=True)
    numbers = range(0, len(prompts), _BLOCK)
    missing = [first for first in numbers if not _block(blocks, first).is_file()]
    if missing:
        _answer(job, prompts, missing, blocks)
    answers = [json.loads(line) for first in numbers for line in _block(blocks, first).open(encoding="utf-8")]
    kept = [row for row in answers if row["ended"] and row["output"] and not row["prompt_truncated"]]
    report = {
        "prompts": len(prompts),
        "kept": len(kept),
        "without_end": sum(not row["ended"] for row in answers),
        "empty": sum(row["ended"] and not row["output"] for row in answers),
        "prompt_too_long": sum(row["prompt_truncated"] for row in answers),
        "generated_tokens": sum(row["generated_tokens"] for row in answers),
    }
    print(json.dumps(report, indent=2), flush=True)
    if not kept:
        raise InputError(
            f"{arguments['model']}: none of its {len(prompts):,} answers has an end within {arguments['max_new_tokens']} tokens; "
            "fix: raise methods.seqkd.max_new_tokens, or train the teacher on such answers"
        )
    keys = ("prompt", "instruction", "input", "output")
    write_jsonl_atomic(job.folder / "answers.jsonl", ({key: row[key] for key in keys if key in row} for row in kept))
    job.finish(
        output,
        report=report,
        cost=job.cost(tokens=report["generated_tokens"], teacher_examples=len(prompts)),
    )
    shutil.rmtree(blocks)


def _prompts(job: JobContext) -> list[str | Instruction]:
    from dskd.data.preparation import has_templates, load_examples
    from dskd.modeling.loading import load_tokenizer
    from harness.steps.data import apply_templates

    arguments = job.arguments
    path = Path(arguments["examples"])
    if arguments["columns"] is not None:
        rows = apply_templates(path, arguments["columns"])
        path = job.folder / "examples.jsonl"
        write_jsonl_atomic(path, rows)
    instructions = has_templates(load_tokenizer(Path(arguments["model"])))
    return [example.prompt for example in load_examples(path, instructions=instructions)][: arguments["limit"]]


def _block(folder: Path, first: int) -> Path:
    return folder / f"{first:09}.jsonl"


def _answer(job: JobContext, prompts: Sequence[str | Instruction], missing: Sequence[int], blocks: Path) -> None:
    """Answer the blocks that begin at these prompts; each prompt has random numbers of its own, so a resumed job says the same."""
    from dskd.data.preparation import encode_prompt
    from dskd.modeling.loading import load_tokenizer
    from harness.engines import create_engine
    from harness.engines._seeds import sample_seed
    from harness.engines._types import Sampling

    arguments, total = job.arguments, len(prompts)
    model, seed = Path(arguments["model"]), arguments["seed"]
    tokenizer = load_tokenizer(model)
    texts = [prompt_text(tokenizer, prompt) for prompt in prompts]
    room = max(max(1, len(encode_prompt(tokenizer, text))) for text in texts)
    sampling = Sampling(arguments["max_new_tokens"], temperature=arguments["temperature"])
    # "None" is part of every draw: with another name the same teacher would give other responses.
    seeds = [sample_seed(seed, f"None/{number}", 0) for number in range(total)]
    lm = create_engine(
        arguments["engine"],
        model,
        seed=seed,
        max_batch_size=arguments["max_batch_size"],
        max_length=room + arguments["max_new_tokens"],
        dtype=arguments["dtype"],
    )
    done = total - sum(min(_BLOCK, total - first) for first in missing)

    def finished(count: int) -> None:
        nonlocal done
        done += count
        job.progress.advance(f"answers by {lm.name}", done, total)

    lm.on_finished = finished
    try:
        for first in missing:
            asked = prompts[first : first + _BLOCK]
            completions = lm.complete(texts[first : first + _BLOCK], sampling, seeds[first : first + _BLOCK])
            rows = [
                {
                    **({"prompt": prompt} if isinstance(prompt, str) else prompt._asdict()),
                    "output": completion.text,
                    "ended": completion.finish_reason == "stop",
                    "prompt_truncated": completion.prompt_truncated,
                    "generated_tokens": len(completion.ids),
                }
                for prompt, completion in zip(asked, completions, strict=True)
            ]
            write_jsonl_atomic(_block(blocks, first), rows)
    finally:
        lm.close()
