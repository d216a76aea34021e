"""Bar P3: tokens aligned a second on one core once offsets are known, against the plain loop over both sequences.

Without --data the texts are the small world's, prompt and response together, with its two tokenizers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch

from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.alignment import align, byte_spans
from dskd.tokenization.vocabulary import Vocabulary
from harness.smallworld import write_world

Spans = list[tuple[np.ndarray, np.ndarray]]


def two_pointers(teacher_spans: np.ndarray, student_spans: np.ndarray) -> tuple[list[int], list[int]]:
    """What one would write first: both sequences are walked once, the one that is behind goes on. Pairs as `align` gives them."""
    teacher, student = teacher_spans.tolist(), student_spans.tolist()
    pairs: tuple[list[int], list[int]] = ([], [])
    i = j = 0
    while i < len(teacher) and j < len(student):
        (first, last), (other_first, other_last) = teacher[i], student[j]
        if last <= first:  # covers nothing, or unknown
            i += 1
        elif other_last <= other_first:
            j += 1
        elif (first, last) == (other_first, other_last):
            pairs[0].append(i)
            pairs[1].append(j)
            i, j = i + 1, j + 1
        elif (first, last) < (other_first, other_last):
            i += 1
        else:
            j += 1
    return pairs


def small_world(folder: Path) -> tuple[list[str], list[Path]]:
    write_world(folder)
    lines = (folder / "train" / "pretraining.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["prompt"] + row["output"] for row in rows], [
        folder / "tokenizers" / kind for kind in ("bytelevel", "sentencepiece")
    ]


def outputs(file: Path, limit: int) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()[:limit]
    found = [json.loads(line)["output"] for line in lines]
    return [output if isinstance(output, str) else output[0] for output in found]


def spans_of(texts: list[str], folders: list[Path]) -> list[list[np.ndarray]]:
    """For each tokenizer, the spans of every text."""
    found = []
    for folder in folders:
        tokenizer = load_tokenizer(folder)
        vocabulary = Vocabulary.from_tokenizer(tokenizer)
        encodings = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        found.append(
            [
                byte_spans(vocabulary, ids, text, offsets)
                for ids, text, offsets in zip(encodings["input_ids"], texts, encodings["offset_mapping"], strict=True)
            ]
        )
    return found


def joined(sides: list[np.ndarray], texts: list[str]) -> np.ndarray:
    """The spans of all texts written one after the other."""
    starts = np.cumsum([0] + [len(text.encode()) for text in texts])
    moved = [np.where(spans < 0, spans, spans + start) for spans, start in zip(sides, starts, strict=False)]
    return np.concatenate(moved)


def main() -> None:
    options = report.parser(
        __doc__, "python tests/benchmarks/p3_alignment.py --data dolly.jsonl --tokenizers mistral gpt2 --json P3.json"
    )
    options.add_argument("--data", type=Path, metavar="FILE.jsonl", help="align the outputs of a training file")
    options.add_argument(
        "--tokenizers", type=Path, nargs=2, metavar=("TEACHER", "STUDENT"), help="folders; with --data"
    )
    options.add_argument("--limit", type=int, default=2000, help="texts")
    options.add_argument("--repeats", type=int, default=5)
    chosen = options.parse_args()
    if (chosen.data is None) != (chosen.tokenizers is None):
        options.error("give --data and --tokenizers together")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.data is None:
            texts, folders = small_world(Path(folder))
        else:
            texts, folders = outputs(chosen.data, chosen.limit), chosen.tokenizers
        texts = texts[: chosen.limit]
        sides = spans_of(texts, folders)
    rows: list[dict[str, Any]] = []
    speeds = []
    for teacher, student in ((0, 1), (1, 0)):
        pairs: Spans = list(zip(sides[teacher], sides[student], strict=True))
        whole = [(joined(sides[teacher], texts), joined(sides[student], texts))]
        for kind, documents in ((f"{len(pairs):,} texts", pairs), ("all in one", whole)):
            for left, right in documents:
                vectorised, plain = align(left, right), two_pointers(left, right)
                assert [side.tolist() for side in vectorised] == list(plain)
            tokens = sum(len(right) for _, right in documents)
            seconds = report.alternate(
                {
                    "align": lambda: [align(*spans) for spans in documents],  # noqa: B023
                    "loop": lambda: [two_pointers(*spans) for spans in documents],  # noqa: B023
                },
                chosen.repeats,
            )
            if documents is pairs:
                speeds.append(tokens / seconds["align"])
            rows.append(
                {
                    "teacher → student": f"{folders[teacher].name} → {folders[student].name}",
                    "documents": kind,
                    "student tokens a text": round(tokens / len(pairs), 1),
                    "align, M tokens/s": tokens / seconds["align"] / 1e6,
                    "plain loop, M tokens/s": tokens / seconds["loop"] / 1e6,
                    "ratio": seconds["loop"] / seconds["align"],
                }
            )
    report.publish(
        "P3",
        rows,
        value={"tokens_per_second": min(speeds)},
        bar={"tokens_per_second": "≥ 2,000,000 student tokens a core, text by text; the pairs are those of the loop"},
        holds=min(speeds) >= 2e6,
        shapes=f"{len(texts):,} texts of " + (chosen.data.name if chosen.data else "the small world"),
        dtype="int64",
        file=chosen.json,
    )


if __name__ == "__main__":
    main()
