"""The run of a training in trackers: its name and tags, its logged steps, and later the scores of its student.

transformers' callbacks send what is logged to a run that is open already. It is opened here, so that each start of a training goes on
in the run of the one before it, and an evaluation finds it again:

=============  ============================================================================
TensorBoard    files in FOLDER/tensorboard; tags as text
W&B            the id of the run is the tag `hash`; name, group `run`, tags, configuration
MLflow         the id of the run stands in FOLDER/mlflow.json; name and tags
trackio        the project `run` and the name of the run; tags in its configuration
=============  ============================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from dskd.io import write_atomic

PROJECT = "dskd"  # where no tag says of which run a training is
_TENSORBOARD, _MLFLOW = "tensorboard", "mlflow.json"


@contextmanager
def open_run(tracker: str, folder: Path, tags: Mapping[str, str], *, after_step: int = 0) -> Iterator[Any]:
    """The run of a training in a tracker, open as long as the context; a new one, or the one that was there.

    Args:
        tracker: `tensorboard`, `wandb`, `mlflow` or `trackio`.
        folder: Of the training.
        tags: `name` of the run, `run` (the project or group), `hash` (the id), and whatever else is to be found by.
        after_step: What was logged after this step will be logged again.

    Yields:
        What logs: a SummaryWriter, a run of W&B, the module of MLflow or of trackio.
    """
    project, name = tags.get("run", PROJECT), tags.get("name")
    if tracker == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder / _TENSORBOARD), purge_step=after_step + 1 if after_step else None) as writer:
            for key, value in tags.items():
                writer.add_text(key, value)
            yield writer
    elif tracker == "wandb":
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        more: dict[str, Any] = {"name": name, "group": tags.get("run"), "tags": _short(tags), "config": dict(tags)}
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        with wandb.init(project=project, id=tags.get("hash"), resume="allow", dir=str(folder), **more) as run:
            yield run
    elif tracker == "mlflow":
        import mlflow

        place = folder / _MLFLOW
        known = json.loads(place.read_text(encoding="utf-8"))["run_id"] if place.is_file() else None
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", project))
        with mlflow.start_run(run_id=known, run_name=name, tags=dict(tags)) as run:
            write_atomic(place, json.dumps({"run_id": run.info.run_id}) + "\n")
            yield mlflow
    else:
        import trackio

        trackio.init(project=project, name=name, resume="allow", config=dict(tags))
        try:
            yield trackio
        finally:
            trackio.finish()


def log_scores(tracker: str, folder: Path, tags: Mapping[str, str], scores: Mapping[str, float], *, step: int) -> None:
    """Send the scores of a student to the run of its training.

    Args:
        tracker, folder, tags: As of `open_run`.
        scores: By name, such as `small_math/accuracy`.
        step: After which the student was evaluated: its last.
    """
    named = {f"scores/{name}": value for name, value in scores.items()}
    with open_run(tracker, folder, tags) as run:
        if tracker == "tensorboard":
            for name, value in named.items():
                run.add_scalar(name, value, step)
        elif tracker == "wandb":
            run.summary.update(named)
        elif tracker == "mlflow":
            run.log_metrics({name.replace("@", "-"): value for name, value in named.items()}, step=step)
        else:
            run.log(named)


class Trackers:
    """The runs of one training in its trackers, open while it trains."""

    def __init__(self, trackers: tuple[str, ...], folder: Path, tags: Mapping[str, str]) -> None:
        self._trackers, self._folder, self._tags = trackers, folder, dict(tags)

    @contextmanager
    def open(self, trainer: Any, *, after_step: int) -> Iterator[None]:
        """Open the runs in the first process; transformers' callbacks find them."""
        with ExitStack() as stack:
            for tracker in self._trackers if trainer.args.process_index == 0 else ():
                run = stack.enter_context(open_run(tracker, self._folder, self._tags, after_step=after_step))
                if tracker == "tensorboard":
                    _callback(trainer, TensorBoardCallback).tb_writer = run
            yield


def _callback(trainer: Any, kind: type[TrainerCallback]) -> Any:
    return next(each for each in trainer.callback_handler.callbacks if isinstance(each, kind))


def _short(tags: Mapping[str, str]) -> list[str]:
    """Tags of W&B, which may have 64 characters each."""
    return [f"{key}:{value}"[:64] for key, value in tags.items() if key not in ("name", "run")]
