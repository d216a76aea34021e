"""What the small world's teacher and SFT reach, and what the teacher knows that the labels do not say.

    python tests/benchmarks/small_world.py --output DIR [--seeds 1 2 3]

trains the models of the matrix `quick` with each seed through the repository's own trainer, evaluates them with transformers, and
prints the tables of docs/small-world.md. No method but SFT is run: the world is judged on the teacher and SFT alone. Seconds are
processor time of one thread, so that other work on the machine hardly matters. What stands in DIR is not done again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import yaml

import harness
from dskd.data.preparation import Example, encode_example, prepare_dataset
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.tokenization.vocabulary import Vocabulary
from dskd.training.run import TrainingOptions, train
from harness.config.matrix import Matrix
from harness.config.sources import NewModel, SmallWorldData, Training
from harness.engines import create_engine
from harness.engines.base import Sampling
from harness.evaluation.evaluate import EvaluationOptions, evaluate
from harness.smallworld import SMALL_WORLD_VERSION, write_world
from harness.steps.base_model import new_model

TASKS = ("small_instruct", "small_math", "small_code")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    matrix_file = Path(harness.__file__).parent / "matrices" / "quick.yaml"
    matrix = Matrix.model_validate(yaml.safe_load(matrix_file.read_text(encoding="utf-8")))
    world = arguments.output / "world"
    write_world(world)
    runs = []
    for seed in arguments.seeds:
        file = arguments.output / f"seed{seed}" / "results.json"
        if not file.is_file():
            with contextlib.redirect_stdout(sys.stderr):  # the tables alone are for stdout
                measured = run(matrix, world, arguments.output, seed)
            file.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
        runs.append(json.loads(file.read_text(encoding="utf-8")))
    print_tables(runs, arguments.seeds)


def run(matrix: Matrix, world: Path, output: Path, seed: int) -> dict[str, Any]:
    """Train, score and measure everything for one seed."""
    results: dict[str, Any] = {"scores": {}, "seconds": {}}
    teacher = matrix.pairs[0].teacher
    for name in (teacher, *(pair.student for pair in matrix.pairs)):
        folder = output / f"seed{seed}" / name
        recipe = matrix.models[name]
        assert isinstance(recipe, NewModel)
        stages = [("base", recipe.training)]
        if name != teacher:
            stages.append(("sft", [matrix.training]))
        model = start(recipe, world, folder / "start", seed)
        for stage, trainings in stages:
            for training in trainings:
                begin = time.process_time()
                model = train_stage(matrix, training, world, model, folder / stage, seed)
                results["seconds"][f"{name} {stage}"] = time.process_time() - begin
            label = name if name == teacher else f"{name} {stage}"
            runs = evaluate(
                model, dict.fromkeys(TASKS, EvaluationOptions()), engine="transformers", allow_code_execution=True
            )
            results["scores"][label] = {
                each.task: mean(next(iter(sample["scores"].values())) for sample in each.samples) for each in runs
            }
            print(f"seed {seed}: {label}: {results['scores'][label]}", file=sys.stderr, flush=True)
    results["knowledge"] = knowledge(output / f"seed{seed}" / teacher / "base" / "model", world)
    return results


def start(recipe: NewModel, world: Path, folder: Path, seed: int) -> Path:
    assert recipe.tokenizer.small_world is not None
    new_model(recipe.config, world / "tokenizers" / recipe.tokenizer.small_world, seed, folder)
    return folder


def train_stage(matrix: Matrix, training: Training, world: Path, model: Path, folder: Path, seed: int) -> Path:
    source = matrix.data[training.data]
    assert isinstance(source, SmallWorldData)
    options = TrainingOptions.model_validate(training.options)
    examples = world / "train" / f"{source.small_world}.jsonl"
    prepare_dataset(examples, folder / "data", student=model, max_length=options.max_length, limit=source.limit)
    train(data=folder / "data", student=model, options=options, seed=seed, output=folder)
    return folder / "model"


def knowledge(teacher: Path, world: Path) -> dict[str, dict[str, float]]:
    """What the teacher alone knows about the student's training set, whose prompts it has not seen, for each task.

    wrong_labels: share of examples whose label is wrong. right_where_wrong: of these, share where the teacher's greedy answer is
    the right one: word for word, or, of a word problem, the same result. label_loss and right_loss: of these, the teacher's cross
    entropy per response token on the label and on the right answer.
    """
    rows = [json.loads(line) for line in (world / "train" / "student.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, dict[str, float]] = {}
    for task in TASKS:
        of_task = [row for row in rows if row["task"] == task]
        wrong = [row for row in of_task if not row["right"]]
        answers = generate(teacher, [row["prompt"] for row in wrong])
        found[task] = {
            "wrong_labels": len(wrong) / len(of_task),
            "right_where_wrong": mean(
                same_result(answer, row["gold"]) for answer, row in zip(answers, wrong, strict=True)
            ),
            "label_loss": loss(teacher, [(row["prompt"], row["output"]) for row in wrong]),
            "right_loss": loss(teacher, [(row["prompt"], row["gold"]) for row in wrong]),
        }
    return found


def same_result(answer: str, gold: str) -> bool:
    return answer.rpartition("#### ")[2] == gold.rpartition("#### ")[2]


def generate(model: Path, prompts: Sequence[str]) -> list[str]:
    engine = create_engine("transformers", model)
    return [completion.text for completion in engine.complete(prompts, Sampling(max_new_tokens=64))]


@torch.no_grad()
def loss(model_folder: Path, examples: Sequence[tuple[str, str]]) -> float:
    """Mean cross entropy per response token, without the end token, over all examples."""
    tokenizer, model = load_tokenizer(model_folder), load_model(model_folder, "float32").eval()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    losses: list[float] = []
    for prompt, response in examples:
        encoded = encode_example(tokenizer, vocabulary, Example(prompt, response))
        assert encoded is not None
        prompt_ids, response_ids, _ = encoded
        logits = model(input_ids=torch.tensor([prompt_ids + response_ids])).logits[0, len(prompt_ids) - 1 : -1]
        losses += torch.nn.functional.cross_entropy(logits, torch.tensor(response_ids), reduction="none").tolist()
    return mean(losses)


def print_tables(runs: Sequence[dict[str, Any]], seeds: Sequence[int]) -> None:
    def over_seeds(values: Sequence[float]) -> str:
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        return f"{mean(values):.1f}{spread} ({', '.join(f'{value:.0f}' for value in values)})"

    print(f"Small world version {SMALL_WORLD_VERSION}; seeds {', '.join(map(str, seeds))}: mean ± s.d. (each seed)\n")
    print("| model | " + " | ".join(TASKS) + " |\n|---|" + "---|" * len(TASKS))
    for label in runs[0]["scores"]:
        print(
            f"| {label} | " + " | ".join(over_seeds([r["scores"][label][task] for r in runs]) for task in TASKS) + " |"
        )
    print("\n| stage | seconds of one thread |\n|---|---|")
    for stage in runs[0]["seconds"]:
        print(f"| {stage} | {mean(r['seconds'][stage] for r in runs):.0f} |")
    print(
        "\n| student's training set | wrong labels | of these the teacher has right | its loss on the label | on the right answer |"
    )
    print("|---|---|---|---|---|")
    for task in TASKS:
        known = [r["knowledge"][task] for r in runs]
        shares = [f"{100 * mean(k[name] for k in known):.0f} %" for name in ("wrong_labels", "right_where_wrong")]
        losses = [f"{mean(k[name] for k in known):.2f}" for name in ("label_loss", "right_loss")]
        print(f"| {task} | " + " | ".join([*shares, *losses]) + " |")


if __name__ == "__main__":
    main()
