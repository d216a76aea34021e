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

from dskd.data import prepare_dataset
from dskd.models import load_tokenizer
from dskd.string_alignment import published_student_ids
from dskd.vocabulary import Vocabulary, share_vocabulary
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
        counts: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(5, dtype=np.int64))
        for row in datasets.load_from_disk(str(folder / "data")):
            labels = row["student_ids"][row["student_prompt_length"] :]
            teacher_labels = np.array(row["teacher_ids"][row["teacher_prompt_length"] :])[row["teacher_string_pairs"]]
            unknown = student_ids["dskdv2"][teacher_labels] == tokenizer.unk_token_id
            dropped = student_ids["kdflow"][teacher_labels] < 0
            found = [len(row["student_pairs"]), len(row["student_string_pairs"]), unknown.sum(), dropped.sum()]
            counts[task_of(tokenizer.decode(labels))] += [len(labels), *found]
    table = Table("task", "labels", "by bytes", "by spelling", "of these unknown to DSKDv2", "dropped by KDFlow")
    for task, (labels, by_bytes, by_spelling, *lost) in sorted(counts.items()):
        shares = by_bytes / labels, by_spelling / labels, *(count / by_spelling for count in lost)
        table.add_row(task, f"{labels:,}", *(f"{share:.0%}" for share in shares))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
