"""GKD with half of the examples on-policy: the student generates their responses while it is trained (docs/rollouts.md).

python examples/on_policy.py --teacher models/teacher --student models/student --data train.jsonl --output out

GKD needs a teacher and a student with one tokenizer. `--engine vllm` samples with vLLM.
"""

import argparse
from pathlib import Path

from dskd import TrainingOptions, prepare_dataset, train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--teacher", type=Path, required=True)
parser.add_argument("--student", type=Path, required=True)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
arguments = parser.parse_args()

prepare_dataset(arguments.data, arguments.output / "data", student=arguments.student, teacher=arguments.teacher)
report = train(
    data=arguments.output / "data",
    student=arguments.student,
    teacher=arguments.teacher,
    method="gkd",
    options=TrainingOptions(
        epochs=2,
        batch_size=16,
        learning_rate=5e-4,
        rollouts={"share": 0.5, "max_new_tokens": 64, "engine": arguments.engine},
    ),
    output=arguments.output / "run",
)
assert report.rollouts is not None
print(report.rollouts.model_dump_json(indent=2))
