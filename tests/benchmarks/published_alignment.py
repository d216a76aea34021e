"""How many labels of the small world have a partner, by bytes and as the published code pairs, and what its look-ups lose of those.

Not one of the bars: the table of docs/small-world.md. A prediction is taken to be the label, as a good teacher's mostly is.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import datasets
import numpy as np
import report
from rich.console import Console
from rich.table import Table

from dskd.data.preparation import prepare_dataset
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.upstream.string_alignment import published_student_ids
from harness.smallworld.world import write_world


def task_of(response: str) -> str:
    """The task that a response of the small world belongs to, by its form."""
    return "small_math" if "####" in response else "small_code" if "return" in response else "small_instruct"


def main() -> None:
    report.parser(__doc__ or "", "python tests/benchmarks/published_alignment.py").parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder / "world")
        teacher, student = (folder / "world" / "tokenizers" / kind for kind in ("bytelevel", "sentencepiece"))
        examples = folder / "world" / "train" / "student.jsonl"
        prepare_dataset(examples, folder / "data", student=student, teacher=teacher, max_length=128)
        tokenizer = load_tokenizer(student)
        shared = share_vocabulary(*(Vocabulary.from_tokenizer(load_tokenizer(side)) for side in (teacher, student)))
        student_ids = {code: published_student_ids(shared, code) for code in ("dskdv2", "kdflow")}
        counts: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(7, dtype=np.int64))
        for row in datasets.load_from_disk(str(folder / "data")):
            labels = row["student_ids"][row["student_prompt_length"] :]
            teacher_labels = np.array(row["teacher_ids"][row["teacher_prompt_length"] :])
            found = [len(labels)]
            for pairs in (row["teacher_pairs"], row["teacher_string_pairs"]):
                paired = teacher_labels[pairs]
                unknown = student_ids["dskdv2"][paired] == tokenizer.unk_token_id
                found += [len(paired), unknown.sum(), (student_ids["kdflow"][paired] < 0).sum()]
            counts[task_of(tokenizer.decode(labels))] += found
    columns = "share of all pairs", "unknown to DSKDv2", "dropped by KDFlow"
    table = Table("task", "labels", "by bytes", *columns, "by spelling", *columns)
    whole = sum(counts.values())
    for task, row in sorted(counts.items()):
        shares: list[float] = []
        for first in (1, 4):
            pairs, *losses = row[first : first + 3]
            shares += [pairs / row[0], pairs / whole[first], *(lost / pairs for lost in losses)]
        table.add_row(task, f"{row[0]:,}", *(f"{share:.0%}" for share in shares))
    table.add_row("all", f"{whole[0]:,}", f"{whole[1] / whole[0]:.0%}", *[""] * 3, f"{whole[4] / whole[0]:.0%}")
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
