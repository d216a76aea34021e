"""The models that students and teachers start from: a folder of the user's, a copy of one, or one made and trained here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

import dskd
from dskd import hub
from dskd.errors import InputError
from dskd.hub.names import HubName
from dskd.io import read_object
from dskd.modeling.folders import parts_of, text_config, tokenizer_folder
from dskd.tokenization.prompt_templates import Template
from dskd.training.options import TrainingOptions
from harness.costs.formulas import training_work
from harness.costs.model_shapes import Shape, published_model, shape_of
from harness.costs.needs import START_MINUTES, UNKNOWN_LENGTHS, training_needs, unknown_needs, weight_bytes
from harness.costs.resources import BASE_MEMORY, Resources
from harness.costs.work import Device, Work
from harness.runs.hub_lock import HubLock
from harness.runs.identity import BASE, BASE_COMMIT, FileHashes, require_tokenizer
from harness.runs.job_context import JobContext
from harness.runs.rate import Rate
from harness.runs.records import Cost
from harness.runs.store import write_json_atomic
from harness.steps.base import (
    INLINE,
    Input,
    ModelInput,
    Of,
    Step,
    TokenizerInput,
    TrainingSource,
    if_known,
    same_as,
)
from harness.steps.create_model import check_copy, copy_model, new_model
from harness.steps.data import PreparedData
from harness.steps.first_layers import first_layers
from harness.steps.libraries import TRAINING
from harness.steps.tokenizers import ChangedTokenizer, FolderInput, TokenizerChanges, TokenizerFiles


class ModelFolder(FolderInput, ModelInput):
    """A model in a folder of the user's or from the hub, as it is."""

    tokenizer: TokenizerFiles

    @property
    def is_remote(self) -> bool:
        """Whether it, or the base model of an adapter, comes from the hub."""
        return self.from_hub is not None or BASE in self.files

    def path(self, root: Path) -> Path:
        """Where it is, whole: what is missing on this machine is downloaded."""
        folder = self.settings
        if self.from_hub:
            hub.snapshot(*self.from_hub)
        if BASE in self.files:
            hub.snapshot(self.files[BASE], self.files[BASE_COMMIT])
        return folder

    tokenizer_input = same_as("tokenizer")

    @cached_property
    def text_config(self) -> dict[str, Any]:
        if "absent" in self.files:  # a published model, for an estimate
            return {}
        return text_config(read_object(parts_of(self.settings).config))

    @cached_property
    def shape(self) -> Shape:
        absent = "absent" in self.files
        return (published_model(str(self.folder)) if absent else shape_of(self.text_config)) or super().shape

    @property
    def lineage(self) -> list[TrainingSource]:
        what = "comes from the hub" if self.from_hub else "is a model folder from elsewhere"
        reason = f"{self.name} {what}: what it was trained on is not known here"
        return [TrainingSource(None, reason=reason)]


class _MadeModel(Step, ModelInput):
    """A model that a step makes."""

    kind, version, place, product = "model", 2, "models", "model"


class ModelCopy(_MadeModel):
    """A copy of a model's folder with a changed tokenizer; weights are linked, not copied, where the file system can."""

    origin: Annotated[Of[ModelFolder], INLINE]
    changes: Annotated[TokenizerChanges, INLINE]

    text_config = same_as("origin.text_config")
    shape = same_as("origin.shape")
    lineage = same_as("origin.lineage")

    @property
    def tokenizer_input(self) -> TokenizerInput:
        return ChangedTokenizer(origin=self.origin.tokenizer, changes=self.changes, maker=self)

    def run(self, job: JobContext) -> None:
        folder = self.path(job.root)
        shutil.rmtree(folder, ignore_errors=True)
        copy_model(self.origin.path(job.root), folder)
        self.changes.apply(folder)
        check_copy(folder)
        job.finish(job.output, report={"stages": []}, cost=training_cost(job, []))


class Stage(Input):
    """A stage of supervised training of a new model."""

    data: Of[PreparedData]
    options: TrainingOptions


class TrainedModel(_MadeModel):
    """A model made here and then trained in stages. What was trained before a kill is not trained again."""

    splits_batches = True

    seed: int
    training: list[Stage]

    def start(self, root: Path, folder: Path) -> None:
        """Make the model that the first stage starts from."""
        raise NotImplementedError

    @property
    def stage_sources(self) -> list[TrainingSource]:
        """The training sets of its stages."""
        return [stage.data.training_source for stage in self.training]

    @property
    def libraries(self) -> tuple[str, ...]:
        return TRAINING

    def estimate(self, device: Device) -> list[Work]:
        return [
            training_work(self.kind, f"{self.name} on {data.set_name}", device, self.shape, options, data.lengths)
            for data, options in ((stage.data, stage.options.model_dump()) for stage in self.training)
        ]

    def resources(self) -> Resources:
        shape, gpus = if_known(lambda: self.shape), 1 if self.training else 0
        if shape is None:
            return unknown_needs(gpus)
        start = if_known(lambda: self.start_shape) or shape
        loaded = [weight_bytes(start, "float32")]
        if not self.training:
            return Resources(memory=BASE_MEMORY + loaded[0], minutes=START_MINUTES)
        lengths = if_known(lambda: [stage.data.lengths for stage in self.training])
        work = [
            training_work(self.kind, "", Device(), shape, stage.options.model_dump(), data)
            for stage, data in zip(self.training, lengths or repeat(UNKNOWN_LENGTHS), strict=False)
        ]
        return training_needs(work, loaded, timed=lengths is not None)

    @property
    def start_shape(self) -> Shape:
        """Of the model that is loaded to make it. InputError where that is not known."""
        return self.shape

    def run(self, job: JobContext) -> None:
        stages, joined = job.folder / "stages", job.folder / "stages.json"
        # Where the model is in place already, the job was killed before it could say so.
        if not self.path(job.root).is_dir():
            model = stages / "start"
            if not model.is_dir():
                job.progress.advance("new model", 0, None)
                unfinished = stages / "start.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                self.start(job.root, unfinished)
                unfinished.rename(model)
            for index in range(len(self.training)):
                model = self._train(job, index, model, stages / str(index))
            reports = [read_object(stages / str(index) / "report.json") for index in range(len(self.training))]
            write_json_atomic(joined, reports)
            model.replace(self.path(job.root))
        reports = json.loads(joined.read_text(encoding="utf-8"))
        job.finish(job.output, report={"stages": reports}, cost=training_cost(job, reports))
        shutil.rmtree(stages, ignore_errors=True)

    def _train(self, job: JobContext, index: int, model: Path, folder: Path) -> Path:
        """Train a stage unless it was trained before a kill."""
        stage, done = self.training[index], folder / "report.json"
        if not done.is_file():
            report = dskd.train(
                data=stage.data.path(job.root),
                student=model,
                options=split_options(stage.options, job),
                seed=self.seed,
                output=folder,
                stop=job.stop_requested,
                progress=training_progress(job, f"stage {index + 1} of {len(self.training)}"),
            )
            write_json_atomic(done, json.loads(report.model_dump_json()))
        return folder / "model"


class NewModel(TrainedModel):
    """A model from random weights; its vocabulary size and special ids come from the tokenizer."""

    config: dict[str, Any]
    tokenizer: Of[TokenizerInput]

    tokenizer_input = same_as("tokenizer")
    text_config = same_as("config")
    lineage = same_as("stage_sources")

    @cached_property
    def shape(self) -> Shape:
        return shape_of({"vocab_size": self.tokenizer.vocabulary.size, **self.config}) or super().shape

    def start(self, root: Path, folder: Path) -> None:
        new_model(self.config, self.tokenizer.path(root), self.seed, folder)


class FirstLayers(TrainedModel):
    """The first layers of another model, with its embedding, final norm, head and tokenizer."""

    layers_of: Of[ModelInput]
    layers: int

    tokenizer_input = same_as("layers_of.tokenizer_input")
    text_config = same_as("layers_of.text_config")

    @cached_property
    def shape(self) -> Shape:
        return replace(self.layers_of.shape, layers=self.layers)

    @property
    def start_shape(self) -> Shape:
        return self.layers_of.shape

    @property
    def lineage(self) -> list[TrainingSource]:
        return [*self.layers_of.lineage, *self.stage_sources]

    def start(self, root: Path, folder: Path) -> None:
        first_layers(self.layers_of.path(root), self.layers, folder)


def layer_count(model: ModelInput) -> int | None:
    """How many layers a model has, where its configuration says so."""
    if isinstance(model, FirstLayers):
        return model.layers
    counts = (model.text_config.get(key) for key in ("num_hidden_layers", "n_layer"))
    return next((count for count in counts if isinstance(count, int)), None)


def training_cost(job: JobContext, reports: Sequence[Mapping[str, Any]], **measured: Any) -> Cost:
    """The cost of trainings from their reports, and what else was measured.

    Where one was resumed its reports count all starts, and the wall time is null, with the reason: nobody measured it.
    """
    if resumed := [report["resumed_from_step"] for report in reports if report["resumed_from_step"]]:
        reason = f"resumed, the last time at step {resumed[-1]}: the time of starts and of what was done twice was not measured"
        measured = {**measured, "wall_seconds": None, "reason": reason}
    keys = ("train_seconds", "teacher_seconds", "teacher_examples", "tokens")
    sums = {key: sum(report[key] for report in reports) for key in keys}
    speed = sums["tokens"] / sums["train_seconds"] if sums["train_seconds"] else None
    return job.cost(**{**sums, "tokens_per_second": speed, **measured})


def split_options(options: TrainingOptions, job: JobContext) -> TrainingOptions:
    """Options of a training, with micro-batches in at least as many parts as the job is told."""
    return options.model_copy(update={"split_batches": max(options.split_batches, job.split_batches)})


def training_progress(job: JobContext, stage: str) -> Callable[[dict[str, Any]], None]:
    """A callback for `dskd.train`: steps and numbers go to who watches, losses to the log."""
    tokens, steps = Rate(), Rate()

    def report(event: dict[str, Any]) -> None:
        job.progress.advance(stage, event["step"], event["steps"])
        numbers: dict[str, float | None] = {name: value for name, value in event.items() if isinstance(value, float)}
        numbers["steps_per_second"] = steps.at(event["step"])
        if "tokens" in event:
            numbers["tokens_per_second"] = tokens.at(event["tokens"])
        job.progress.measure(**numbers)
        if "loss" in event:
            terms = [f"{name} {value:.4g}" for name, value in event.items() if isinstance(value, float)]
            print(f"{stage}: step {event['step']} of {event['steps']}: {', '.join(terms)}", flush=True)

    return report


def model_in_folder(
    name: str,
    folder: Path | HubName,
    hashes: FileHashes,
    where: str,
    template: Template | None = None,
    *,
    add_bos_token: bool = False,
    lock: HubLock | None = None,
) -> ModelFolder | ModelCopy:
    """A model that is there already, or a copy of it with a changed tokenizer.

    Args:
        name: what it is called.
        folder: where it is: a folder of the user's, or a name on the hub.
        hashes: of files.
        where: what errors begin with.
        template: its prompt template, where it is to have another than its folder says.
        add_bos_token: whether its tokenizer is to add the begin-of-sequence token.
        lock: the commits that the run uses.

    Returns:
        The model. Of one from the hub, only the small files are on this machine.

    Raises:
        InputError: for what is no model, cannot be had, or would run code of its own.
    """
    try:
        place, files, tokenizer_files = _contents(folder, hashes, lock or HubLock())
        hub.refuse_remote_code(parts_of(place).model)
        tokenizer = TokenizerFiles(folder=tokenizer_folder(place).resolve(), files=tokenizer_files)
        model = ModelFolder(name=name, folder=place, files=files, tokenizer=tokenizer)
        _ = model.text_config  # so that a damaged one is reported here, with its place
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    changes = TokenizerChanges(add_bos_token=add_bos_token or None, template=template)
    return ModelCopy(name=name, title=f"model {name}", origin=model, changes=changes) if changes else model


def _contents(folder: Path | HubName, hashes: FileHashes, lock: HubLock) -> tuple[Path, dict[str, str], dict[str, str]]:
    """Where a model is, and what its files and those of its tokenizer are known by."""
    if isinstance(folder, HubName):
        files = {"hub": folder.repo, "commit": lock.resolve(folder)}
        place = hub.settings(files["hub"], files["commit"])
        base = hub.base_on_hub(place)
        whole = files | ({BASE: base.repo, BASE_COMMIT: lock.resolve(base)} if base else {})
    else:
        place, base = folder.resolve(), hub.base_on_hub(folder)
        if base:
            lock.resolve(base)
        whole = files = hashes.model_folder(folder)
    tokenizer = require_tokenizer(place)
    if base is not None and tokenizer != place:  # the base's
        return place, whole, {"hub": base.repo, "commit": lock.resolve(base)}
    # The commit says it of a folder from the hub: nothing there is hashed.
    return place, whole, files if isinstance(folder, HubName) else hashes.tokenizer_folder(place)


def absent_model(name: str, folder: Path) -> ModelFolder:
    """A published model that is not on this machine, for an estimate from its shape."""
    files = {"absent": str(folder)}
    return ModelFolder(name=name, folder=folder, files=files, tokenizer=TokenizerFiles(folder=folder, files=files))
