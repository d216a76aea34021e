"""Bar P5: a teacher cache against running the teacher: how often it is called, its cost on a hit, the loss that it gives.

Random Llamas on the small world's text. `loss` is the forward KL of vanilla distillation at the same student weights: the largest
relative difference of any batch from the live teacher's, in the same dtype of weights. Times are of one epoch of training the
student on the same batches; `teacher` is the time in look_up and, for a teacher cache, that of opening it, every byte checked.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import report
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from dskd import TeacherCacheOptions, build_teacher_cache
from dskd.data.collator import Collator
from dskd.data.preparation import prepare_dataset
from dskd.losses.divergences import forward_kl
from dskd.modeling.lm_head import final_hidden_states, output_head
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.teachers.cached import attach, open_teacher_cache
from dskd.teachers.live import LiveTeacher
from dskd.teachers.teacher import Teacher
from dskd.tokenization.vocabulary import Vocabulary
from harness.smallworld import write_world

TEMPERATURE = 2.0


def write_model(folder: Path, tokenizer: Any, hidden: int, layers: int) -> None:
    """A random model whose next-token distributions are far from even, as trained ones are."""
    torch.manual_seed(hidden)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 64,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        initializer_range=0.1,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def distillation(student: Any, size: int, signal: Teacher, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean forward KL of a batch. One vocabulary: every labelled token is its own partner."""
    batch = signal.fetch(batch)
    hidden = final_hidden_states(
        student, batch.student.input_ids, batch.student.attention_mask, batch.student.position_ids
    )
    assert signal.head is not None
    student_logits = output_head(student, size).logits(hidden.flatten(0, 1)[batch.student.labelled])
    return forward_kl(signal.head.logits(batch.teacher.hidden), student_logits, TEMPERATURE).mean()


@torch.no_grad()
def losses(student: Any, size: int, signal: Teacher, batches: list[Any]) -> torch.Tensor:
    return torch.stack([distillation(student, size, signal, batch) for batch in batches]).double()


def epoch_seconds(folder: Path, size: int, signal: Teacher, batches: list[Any], device: str) -> float:
    student = load_model(folder).to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4)
    report.wait_for(device)
    start = time.perf_counter()
    for batch in batches:
        distillation(student, size, signal, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    report.wait_for(device)
    return time.perf_counter() - start


def main() -> None:
    options = report.parser(__doc__, "python tests/benchmarks/p5_teacher_signal.py --examples 128 --json P5.json")
    options.add_argument("--examples", type=int, default=64)
    options.add_argument("--batch-size", type=int, default=8)
    options.add_argument("--teacher-hidden", type=int, default=384)
    options.add_argument("--student-hidden", type=int, default=192)
    options.add_argument("--device", default="cpu", help="cpu, or cuda")
    options.add_argument("--folder", type=Path, help="for models and signals, by default a temporary one")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        run(Path(folder), chosen)


def run(folder: Path, chosen: Any) -> None:
    write_world(folder / "world")
    with (folder / "world" / "train" / "student.jsonl").open(encoding="utf-8") as lines:
        (folder / "train.jsonl").write_text("".join(itertools.islice(lines, chosen.examples)), encoding="utf-8")
    tokenizer = load_tokenizer(folder / "world" / "tokenizers" / "bytelevel")
    size = Vocabulary.from_tokenizer(tokenizer).size
    teacher, student = folder / "teacher", folder / "student"
    write_model(teacher, tokenizer, chosen.teacher_hidden, layers=8)
    write_model(student, tokenizer, chosen.student_hidden, layers=4)
    prepare_dataset(folder / "train.jsonl", folder / "teacher-data", student=teacher)
    prepare_dataset(folder / "train.jsonl", folder / "data", student=student, teacher=teacher)
    data = datasets.load_from_disk(str(folder / "data"))

    device = chosen.device

    def batches(dataset: Any) -> list[Any]:
        rows = list(dataset)
        return [Collator()(rows[k : k + chosen.batch_size]).to(device) for k in range(0, len(rows), chosen.batch_size)]

    table: list[dict[str, Any]] = []
    differences: dict[str, float] = {}
    shares, calls = [], 0
    plain = batches(data)
    for dtype, kinds in (("float32", ("same", "float16", "bfloat16")), ("bfloat16", ("same", "float16"))):
        live = LiveTeacher(load_model(teacher, dtype).to(device), size)
        expected = losses(load_model(student).to(device), size, live, plain)
        asked, spent = live.examples, live.seconds
        seconds = epoch_seconds(student, size, live, plain, device)
        share = (live.seconds - spent) / seconds
        table.append(_row(f"{dtype} live", live.examples - asked, seconds, live.seconds - spent, share, None, None))
        for stored in kinds:
            kept = folder / f"{dtype}-{stored}"
            arguments = {"options": TeacherCacheOptions(stored_dtype=stored), "dtype": dtype, "device": device}
            first = build_teacher_cache(teacher, folder / "teacher-data", kept, **arguments)
            again = build_teacher_cache(teacher, folder / "teacher-data", kept, **arguments)  # a second method or seed
            start = time.perf_counter()
            cached = open_teacher_cache(kept, device)
            opening = time.perf_counter() - start
            attached = batches(attach(data, kept))
            found = losses(load_model(student).to(device), size, cached, attached)
            difference = float(((found - expected) / expected).abs().max())
            differences[f"{dtype} {stored}"] = difference
            before = cached.seconds
            seconds = epoch_seconds(student, size, cached, attached, device)
            spent = cached.seconds - before + opening
            shares.append(spent / seconds)
            asked = again.built_rows + cached.examples
            calls += asked
            name = f"{dtype} kept as {stored}"
            table.append(_row(name, asked, seconds, spent, shares[-1], difference, first.bytes / first.tokens))
    value = {
        "teacher_calls": calls,
        "loss_difference": max(differences.values()),
        "teacher_share": max(shares),
    }
    lengths = [len(ids) for ids in data["teacher_ids"]]
    report.publish(
        "P5",
        table,
        value=value,
        bar={
            "teacher_calls": "0 examples in a second run",
            "loss_difference": "≤ 1e-3 relative, also in half precision, in the worst batch",
            "teacher_share": "≤ 0.02 of an epoch on a hit, opening included",
        },
        holds=calls == 0 and value["loss_difference"] <= 1e-3 and value["teacher_share"] <= 0.02,
        shapes=f"{len(data)} examples of {sum(lengths) / len(data):.0f} tokens in batches of {chosen.batch_size}, {size} tokens; "
        f"teacher {chosen.teacher_hidden} × 8 layers, student {chosen.student_hidden} × 4 layers",
        dtype="teacher as in the rows, student float32" + ("" if device == "cpu" else f", on {device}"),
        file=chosen.json,
    )


def _row(
    side: str,
    examples: int,
    seconds: float,
    teacher: float,
    share: float,
    difference: float | None,
    size: float | None,
) -> dict[str, Any]:
    return {
        "teacher": side,
        "examples run": examples,
        "epoch s": seconds,
        "teacher s": teacher,
        "share": f"{share:.2%}",
        "loss": "-" if difference is None else f"{difference:.1e}",
        "bytes a token, head included": "-" if size is None else f"{size:,.0f}",
    }


if __name__ == "__main__":
    main()
