"""Distil a teacher's model folder into a student's, for any two tokenizers.

python examples/distil_pair.py --teacher models/teacher --student models/student --data train.jsonl --output out

Each line of the data is {"prompt": "...", "output": "..."}. The trained student is OUTPUT/run/model.
"""

import argparse
from pathlib import Path

from dskd import TrainingOptions, prepare_dataset, train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--teacher", type=Path, required=True)
parser.add_argument("--student", type=Path, required=True)
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--method", default="dskd-v2-eta")
parser.add_argument("--epochs", type=float, default=3)
arguments = parser.parse_args()

data = arguments.output / "data"
prepared = prepare_dataset(arguments.data, data, student=arguments.student, teacher=arguments.teacher)
print(f"{prepared.kept} of {prepared.examples} examples fit")

report = train(
    data=data,
    student=arguments.student,
    teacher=arguments.teacher,
    method=arguments.method,
    options=TrainingOptions(epochs=arguments.epochs, batch_size=16, batching="length_grouped", learning_rate=5e-4),
    seed=1,
    output=arguments.output / "run",
    progress=lambda step: print(f"\r{step['step']} of {step['steps']} steps", end="", flush=True),
)
print(f"\n{report.train_seconds:.0f} s, {report.tokens_per_second:.0f} tokens/s, losses {report.losses}")
