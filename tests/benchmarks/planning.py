"""CPU seconds of planning a matrix with 10,000 outputs: 2,500 trainings, each evaluated on 3 tasks, and what they share.

Nothing is trained. The models and data are those of the small world, so no file of the user's is read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import yaml

from harness.config.matrix_file import shipped_matrices
from harness.planning.plan import make_plan

SEEDS = 250
METHODS = {
    "small-student": ["sft", "kd", "dskd-v1", "dskd-v2", "gkd"],
    "small-student-sentencepiece": ["sft", "dskd-v2-eta", "uld", "mined", "strict-kd"],
}


def write_matrix(folder: Path, seeds: int) -> Path:
    """`quick` with ten methods and many seeds."""
    content = yaml.safe_load(shipped_matrices()["quick"].read_text(encoding="utf-8"))
    pairs = [{"teacher": "small-teacher", "student": name, "methods": methods} for name, methods in METHODS.items()]
    path = folder / "planning.yaml"
    path.write_text(yaml.safe_dump(content | {"name": "planning", "pairs": pairs, "seeds": list(range(seeds))}))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each method")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = write_matrix(Path(name), arguments.seeds)
        started = time.process_time()
        plan = make_plan(str(path), output_dir=Path(name) / "run")
        seconds = time.process_time() - started
    found = {
        "trainings": sum(job.kind == "train" for job in plan.jobs.values()),
        "outputs": sum(len(job.outputs) for job in plan.jobs.values()),
        "cpu_seconds": round(seconds, 2),
    }
    print(f"{found['trainings']:,} trainings, {found['outputs']:,} outputs: {seconds:.2f} CPU seconds")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
