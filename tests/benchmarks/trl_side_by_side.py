"""Our training steps beside those of TRL's trainers, on the same batches, models and threads, in turns in one process.

A step is the teacher's forward (unless cached), the student's forward and backward, and AdamW; on policy also the student's writing.
TRL's are `training_step` of its trainers with their defaults, without gradient checkpointing and in float32. Texts are tokenized before
the step, but for GOLD's teacher, whose texts TRL's trainer tokenizes in the step. Times are CPU seconds of this process: other
programs on the machine change them less than the time on the clock. TRL is no dependency of this project: where it is not installed,
this says so and does nothing else (make bench-trl installs it into .trl).
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report
import torch
import trl_world as world
from p13_step import Kept

from dskd.losses.tokens import TokenBatch
from dskd.modeling.lm_head import labelled_hidden_states, output_head
from dskd.teachers.kept_outputs import predictions
from dskd.teachers.live import LiveTeacher

VERSION = "1.16.0"


# How many times as many tokens a second as the trainer beside it.
AIMS = {"gkd": 8.0, "dskd-v2-eta": 4.0, "gold": 3.0, "gkd, on policy": 3.0}


@dataclass(frozen=True)
class Comparison:
    """A trainer of TRL's and our methods beside it; `tokens` have a label, in a step of either."""

    trainer: str
    tokens: int
    theirs: Callable[[], Any]
    ours: dict[str, Callable[[], Any]]


def trl_step(trainer: Any, inputs: Any) -> Callable[[], None]:
    """One optimizer step of a TRL trainer on a batch; `inputs` makes what its data loader would hand on."""
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=0.0)
    trainer.current_gradient_accumulation_steps = 1  # what its loop sets

    def step() -> None:
        trainer.model.train()
        batch = inputs()
        labels = batch["labels"] if isinstance(batch, dict) else None
        trainer.training_step(trainer.model, batch, None if labels is None else (labels[:, 1:] >= 0).sum())
        optimizer.step()
        optimizer.zero_grad()

    return step


def arguments(folder: str, count: int) -> dict[str, Any]:
    return {
        "output_dir": folder, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no",
        "per_device_train_batch_size": count, "dataloader_pin_memory": False, "learning_rate": 0.0, "max_length": 4096,
    }  # fmt: skip


def cached(teacher: Any, size: int, batch: TokenBatch) -> Kept:
    """What a teacher cache has of the batch."""
    head = output_head(teacher, size).detach()
    with torch.no_grad():
        hidden = labelled_hidden_states(teacher, batch.teacher)
        return Kept(head, hidden, predictions(head, hidden))


def one_vocabulary(chosen: Any, folder: str) -> list[Comparison]:
    """SFT, GKD and, against GKD, dual-space distillation; GKD with a cached teacher against its live one."""
    import datasets
    from trl import SFTConfig, SFTTrainer
    from trl.experimental.gkd import GKDConfig, GKDTrainer
    from trl.experimental.utils import DataCollatorForChatML

    tokenizer = world.large_tokenizer(400, chosen.vocabulary)
    rows = world.conversations(chosen.examples, tuple(chosen.words))
    plain = [{"messages": row["messages"]} for row in rows]
    collated = DataCollatorForChatML(tokenizer, max_length=4096)(plain)
    inputs = {name: collated[name] for name in ("input_ids", "attention_mask", "labels")}
    batch = world.same_tokens(world.side_of(inputs))
    size, vocabulary, count = chosen.vocabulary, world.shared(tokenizer, tokenizer), len(batch.student.labels)
    common = arguments(folder, chosen.examples)
    data: Any = {"train_dataset": datasets.Dataset.from_list(plain), "processing_class": tokenizer}

    def ours(method: str, with_teacher: Callable[[Any], Any]) -> Callable[[], None]:
        student, teacher = world.models(chosen, (size, size))
        step = world.our_step(method, student, size, with_teacher(teacher), None if method == "sft" else vocabulary)
        return lambda: step(batch)

    student, teacher = world.models(chosen, (size, size))
    sft = trl_step(SFTTrainer(student, args=SFTConfig(**common), **data), lambda: dict(inputs))
    student, _ = world.models(chosen, (size, size))
    config = GKDConfig(lmbda=0.0, beta=0.5, **common)
    gkd = trl_step(GKDTrainer(student, teacher, args=config, **data), lambda: dict(collated))
    live: Callable[[Any], Any] = lambda model: LiveTeacher(model, size)  # noqa: E731
    return [
        Comparison("SFT", count, sft, {"sft": ours("sft", lambda _: None)}),
        Comparison(
            "GKD",
            count,
            gkd,
            {
                "gkd": ours("gkd", live),
                "gkd, cached teacher": ours("gkd", lambda model: cached(model, size, batch)),
                "dskd-v2-eta": ours("dskd-v2-eta", live),
            },
        ),
    ]


def two_vocabularies(chosen: Any, folder: str) -> list[Comparison]:
    """GOLD, its extended loss, each group merged by the chain rule on either side."""
    import datasets
    from trl.experimental.gold import GOLDConfig, GOLDTrainer
    from trl.experimental.gold.gold_trainer import build_teacher_inputs_from_texts
    from trl.experimental.utils import DataCollatorForChatML

    own, other = world.large_tokenizer(400, chosen.vocabulary), world.large_tokenizer(330, chosen.vocabulary + 1_000)
    other.save_pretrained(Path(folder) / "teacher")
    rows = world.conversations(chosen.examples, tuple(chosen.words))
    collated = DataCollatorForChatML(own, max_length=4096)(rows)
    texts = ([row[f"original_{part}_text"] for row in rows] for part in ("prompt", "completion"))
    names = "input_ids", "labels", "attention_mask", "byte_offsets"
    of_teacher = dict(zip(names, build_teacher_inputs_from_texts(other, *texts), strict=True))
    batch = world.aligned(collated, of_teacher)
    sizes = len(own), len(other)
    student, teacher = world.models(chosen, sizes)
    config = GOLDConfig(
        use_uld_loss=True,
        uld_token_merge_strategy="bayesian",
        teacher_tokenizer_name_or_path=str(Path(folder) / "teacher"),
        lmbda=0.0,
        **arguments(folder, chosen.examples),
    )
    data = datasets.Dataset.from_list([{"messages": row["messages"]} for row in rows])
    trainer = GOLDTrainer(student, teacher, args=config, train_dataset=data, processing_class=own)
    student, teacher = world.models(chosen, sizes)
    step = world.our_step("gold", student, sizes[0], LiveTeacher(teacher, sizes[1]), world.shared(own, other))
    count = len(batch.student.labels)
    return [Comparison("GOLD", count, trl_step(trainer, lambda: dict(collated)), {"gold": lambda: step(batch)})]


def on_policy(chosen: Any, folder: str) -> list[Comparison]:
    """GKD on the student's own text, written in the step."""
    import datasets
    from trl import DistillationConfig, DistillationTrainer

    tokenizer = world.large_tokenizer(400, chosen.vocabulary)
    rows = world.conversations(chosen.examples, tuple(chosen.words))
    size, texts = chosen.vocabulary, [row["original_prompt_text"] for row in rows]
    prompts = [{"prompt": text} for text in texts]
    student, teacher = world.models(chosen, (size, size))
    common = {name: value for name, value in arguments(folder, chosen.examples).items() if name != "max_length"}
    config = DistillationConfig(max_completion_length=chosen.new, beta=0.5, **common)
    data = datasets.Dataset.from_list(prompts)
    trainer = DistillationTrainer(student, teacher, args=config, train_dataset=data, processing_class=tokenizer)
    student, teacher = world.models(chosen, (size, size))
    sampled = world.our_rollout(student, tokenizer, texts, chosen.new)
    step = world.our_step("gkd", student, size, LiveTeacher(teacher, size), world.shared(tokenizer, tokenizer))
    count = chosen.examples * chosen.new
    ours = {"gkd, on policy": lambda: step(sampled())}
    return [Comparison("Distillation", count, trl_step(trainer, lambda: prompts), ours)]


def in_turns(compared: Comparison, repeats: int) -> list[dict[str, Any]]:
    """CPU seconds of every side's steps, taken in turns after one of each, and what a step takes in memory above what is there."""
    sides = {compared.trainer: compared.theirs, **compared.ours}
    memory, seconds = dict.fromkeys(sides, 0), {side: list[float]() for side in sides}
    for side, run in sides.items():
        with report.peak_memory("cpu") as measured:
            run()
        memory[side] = measured.peak
    for _ in range(repeats):
        for side, run in sides.items():
            start = time.process_time()
            run()
            seconds[side].append(time.process_time() - start)
    taken = {side: statistics.median(values) for side, values in seconds.items()}
    rows = []
    for name in compared.ours:
        ratios = sorted(b / a for a, b in zip(seconds[name], seconds[compared.trainer], strict=True))
        rows.append(
            {
                "ours": name,
                "TRL's": compared.trainer,
                "our tokens / s": compared.tokens / taken[name],
                "TRL's tokens / s": compared.tokens / taken[compared.trainer],
                "ratio": taken[compared.trainer] / taken[name],
                "least": ratios[0],
                "most": ratios[-1],
                "our MiB": memory[name] / 2**20,
                "TRL's MiB": memory[compared.trainer] / 2**20,
                "aim": AIMS.get(name, "–"),
            }
        )
    return rows


def main() -> None:
    options = report.parser(
        (__doc__ or "").splitlines()[0], "PYTHONPATH=tests:.trl python tests/benchmarks/trl_side_by_side.py"
    )
    options.add_argument("--vocabulary", type=int, default=50_257, help="of the student; GOLD's teacher has 1,000 more")
    options.add_argument("--student", type=int, nargs=2, default=[256, 4], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--teacher", type=int, nargs=2, default=[512, 6], metavar=("HIDDEN", "LAYERS"))
    options.add_argument("--examples", type=int, default=8, help="a batch")
    options.add_argument("--words", type=int, nargs=2, default=[32, 32], metavar=("PROMPT", "ANSWER"))
    options.add_argument("--new", type=int, default=64, help="tokens that the student writes after each prompt")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    parts = {
        "SFT": one_vocabulary,
        "GKD": one_vocabulary,
        "GOLD": two_vocabularies,
        "Distillation": on_policy,
    }
    options.add_argument("--only", nargs="+", choices=list(parts), default=list(parts), help="of TRL's trainers")
    chosen = options.parse_args()
    if importlib.util.find_spec("trl") is None:
        print(f"skipped: TRL is not installed; fix: pip install --no-deps --target .trl trl=={VERSION}")
        return
    import trl

    torch.set_num_threads(chosen.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in dict.fromkeys(parts[name] for name in chosen.only):
            for compared in part(chosen, folder):
                rows += in_turns(compared, chosen.repeats) if compared.trainer in chosen.only else []
    value = {row["ours"]: row["ratio"] for row in rows}
    aimed = {name: AIMS[name] for name in value if name in AIMS}
    report.publish(
        "TRL",
        rows,
        value=value,
        bar={name: f"≥ {aimed[name]:g} × TRL's tokens a second" if name in aimed else "none" for name in value},
        holds=all(value[name] >= aim for name, aim in aimed.items()),
        shapes=f"TRL {trl.__version__}; vocabulary {chosen.vocabulary:,}; student {chosen.student[0]} × {chosen.student[1]} layers, "
        f"teacher {chosen.teacher[0]} × {chosen.teacher[1]}; {chosen.examples} examples of {chosen.words} words, {chosen.new} new tokens",
        dtype="float32, CPU seconds",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
