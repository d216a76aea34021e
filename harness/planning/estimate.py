"""What a matrix's trainings would take, estimated from shapes alone: steps, tokens, operations, memory, GPU-hours.

Nothing is loaded or run, so models and data need not be on this machine. docs/matrix.md has the formulas and what they leave out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dskd.errors import InputError
from harness.config.matrix import (
    Cell,
    FileData,
    FirstLayersModel,
    Matrix,
    NewModel,
    PathModel,
    SignalSettings,
    SmallWorldData,
)
from harness.costs.formulas import (
    Lengths,
    bytes_a_number,
    distillation_operations,
    loss_memory,
    steps_of,
    teacher_memory,
    training_memory,
    training_operations,
)
from harness.costs.model_shapes import DataSize, Shape, published_data, published_model, shape_of
from harness.planning.artifacts import training_options

BYTES_A_TOKEN = 4.0  # of text; Dolly has 4.5 with GPT-2's tokenizer and 4.1 with Mistral's
SMALL_WORLD_BYTES_A_TOKEN = 3.2  # 3.4 and 3.0 with its two tokenizers, which are small
UTILIZATION = 0.4
PEAK_TFLOPS = 312.0  # dense bfloat16 of an A100
_SMALL_WORLD = {  # measured on world 0
    "teacher": DataSize(2930, 130, 34, "measured"),
    "pretraining": DataSize(2930, 130, 34, "measured"),
    "student": DataSize(1000, 116, 32, "measured"),
}


@dataclass(frozen=True)
class Device:
    """What a GPU does: its peak and the share of it that a training is assumed to reach."""

    peak_tflops: float = PEAK_TFLOPS
    utilization: float = UTILIZATION

    def hours(self, operations: float) -> float:
        """Of one such GPU."""
        return operations / (self.peak_tflops * 1e12 * self.utilization) / 3600


@dataclass(frozen=True)
class Work:
    """One piece of work. `tokens` are the trained model's (a signal's: the teacher's), `bytes` the memory that a GPU needs."""

    kind: str
    what: str
    steps: int | None
    tokens: float
    operations: float
    bytes: float
    gpu_hours: float
    disk_bytes: float = 0.0  # of a signal


@dataclass
class Estimate:
    """All work of the chosen cells, and in `assumptions` what the figures rest on, a sentence each."""

    device: Device
    work: list[Work] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)


def not_here(matrix: Matrix, cells: Sequence[Cell], source: str) -> list[str]:
    """The models and data of these cells that are not on this machine, as `models.gpt2: no folder '…'`.

    Only published ones, whose shapes are known (harness.costs.model_shapes); InputError for any other that is missing.
    """
    missing = []
    for name in _models_of(matrix, cells):
        model = matrix.models[name]
        if isinstance(model, PathModel) and not Path(model.path).is_dir():
            if published_model(model.path) is None:
                raise InputError(f"{source}: models.{name}.path: no folder '{model.path}'; correct the path")
            missing.append(f"models.{name}: no folder '{model.path}'")
    for name in _data_of(matrix, cells):
        data = matrix.data[name]
        if isinstance(data, FileData) and not Path(data.file).is_file():
            if published_data(data.file) is None:
                raise InputError(f"{source}: data.{name}.file: no file '{data.file}'; correct the path")
            missing.append(f"data.{name}: no file '{data.file}'")
    return missing


def estimate(matrix: Matrix, cells: Sequence[Cell], device: Device | None = None) -> Estimate:
    """Estimate the trainings of these cells and what they need first. InputError for a model whose shape is not known."""
    builder = _Estimator(matrix, device or Device())
    for cell in cells:
        builder.cell(cell)
    found = builder.found
    of_text = dict.fromkeys(
        SMALL_WORLD_BYTES_A_TOKEN if isinstance(matrix.data[name], SmallWorldData) else BYTES_A_TOKEN
        for name in builder.sources
    )
    found.assumptions = [
        f"one GPU of {found.device.peak_tflops:g} TFLOP/s at a utilization of {found.device.utilization:.0%}",
        *(f"{number:g} bytes of text a token" for number in of_text),
        *builder.sources.values(),
        "memory for batches of the longest examples; evaluation, and answers that students sample in training, not counted",
    ]
    return found


def _models_of(matrix: Matrix, cells: Sequence[Cell]) -> list[str]:
    names = dict.fromkeys(n for cell in cells for n in (cell.teacher, cell.student) if n is not None)
    for name in list(names):
        model = matrix.models[name]
        while isinstance(model, FirstLayersModel):
            names.setdefault(model.layers_of)
            model = matrix.models[model.layers_of]
    return list(names)


def _data_of(matrix: Matrix, cells: Sequence[Cell]) -> list[str]:
    names = {matrix.training.data: None} if any(cell.student for cell in cells) else {}
    for name in _models_of(matrix, cells):
        model = matrix.models[name]
        if not isinstance(model, PathModel):
            names |= {stage.data: None for stage in model.training}
    return list(names)


class _Estimator:
    """Adds up the work of cells; what they share is added once."""

    def __init__(self, matrix: Matrix, device: Device) -> None:
        self.matrix = matrix
        self.found = Estimate(device)
        self.sources: dict[str, str] = {}
        self._made: set[tuple[str, ...]] = set()
        self._launch = launch_shape(matrix)

    def cell(self, cell: Cell) -> None:
        from dskd.methods import get

        self.model(cell.teacher)
        if cell.student is None:
            return
        self.model(cell.student)
        method = get(self.matrix.method_of(cell.method))
        options, settings = training_options(self.matrix.training_of(cell.method)), self.matrix.signal_of(cell.method)
        data, live = self.data(self.matrix.training.data), settings.kind == "live"
        teacher = self.shape(cell.teacher) if method.requires.teacher else None
        if teacher is not None and not live:
            self.signal(cell.teacher, teacher, data, options, settings)
        if method.requires.response_source == "teacher":
            self.answers(cell.teacher, data)
        processes = self._launch["processes"]
        steps, examples = steps_of(options, data, processes)
        labelled, tokens = examples * data.response_tokens, examples * data.tokens
        student, dual = self.shape(cell.student), method.name.startswith("dskd")
        operations = training_operations(student, options, tokens, labelled)
        if teacher is not None:
            operations += 2.0 * teacher.layer_parameters * tokens if live else 0.0
            operations += distillation_operations(student, teacher, labelled, dual=dual)
        memory = training_memory(student, options, self._launch)
        memory += loss_memory(student, teacher, options, data, fused=method.requires.chunkable)
        memory += teacher_memory(student, teacher, options, live=live, dual=dual)
        self._add("train", cell.folder, steps, tokens, operations, memory)

    def model(self, name: str) -> None:
        """The stages of training of a model that the matrix makes."""
        source = self.matrix.models[name]
        if isinstance(source, PathModel) or ("model", name) in self._made:
            return
        self._made.add(("model", name))
        if isinstance(source, FirstLayersModel):
            self.model(source.layers_of)
        one = {"processes": 1, "sharded": ""}
        for stage in source.training:
            options, data, shape = training_options(stage), self.data(stage.data), self.shape(name)
            steps, examples = steps_of(options, data, 1)
            tokens, labelled = examples * data.tokens, examples * data.response_tokens
            memory = training_memory(shape, options, one) + loss_memory(shape, None, options, data, fused=True)
            operations = training_operations(shape, options, tokens, labelled)
            self._add("model", f"{name} on {stage.data}", steps, tokens, operations, memory)

    def signal(
        self, name: str, teacher: Shape, data: Lengths, options: Mapping[str, Any], settings: SignalSettings
    ) -> None:
        """The teacher's one pass over the training set."""
        made = ("signal", name, str(settings.options), options["dtype"])
        if made in self._made:
            return
        self._made.add(made)
        tokens = data.examples * data.tokens
        operations = 2.0 * teacher.layer_parameters * tokens
        operations += 2.0 * teacher.head_parameters * data.examples * data.response_tokens
        memory = float(teacher.parameters * bytes_a_number(options))
        what = f"{name} on {self.matrix.training.data}"
        self._add("signal", what, None, tokens, operations, memory, _signal_bytes(teacher, options, settings, data))

    def answers(self, name: str, data: Lengths) -> None:
        """The teacher's own answers to the training set, taken to be as long as the data's."""
        if ("answers", name) in self._made:
            return
        self._made.add(("answers", name))
        teacher, tokens = self.shape(name), data.examples * data.tokens
        operations = 2.0 * teacher.layer_parameters * tokens
        operations += 2.0 * teacher.head_parameters * data.examples * data.response_tokens
        memory = float(teacher.parameters * (4 if self.matrix.evaluation.dtype == "float32" else 2))
        self._add("answers", f"{name} to {self.matrix.training.data}", None, tokens, operations, memory)

    def shape(self, name: str) -> Shape:
        """The shape of a model of the matrix."""
        from dataclasses import replace

        source = self.matrix.models[name]
        if isinstance(source, FirstLayersModel):
            return replace(self.shape(source.layers_of), layers=source.layers)
        if isinstance(source, NewModel):
            shape = shape_of({"vocab_size": self._vocabulary_size(source), **source.config})
        elif Path(source.path).is_dir():
            from dskd.io import read_object

            config = read_object(Path(source.path) / "config.json")
            nested = config.get("text_config")
            shape = shape_of({**config, **nested} if isinstance(nested, dict) else config)
        else:
            shape = published_model(source.path)
        if shape is None:
            raise InputError(
                f"models.{name}: its configuration does not say its shape, so nothing can be estimated; leave out --estimate"
            )
        return shape

    def _vocabulary_size(self, source: NewModel) -> int | None:
        from dskd.tokenization.tokenizer_files import vocabulary
        from harness.smallworld.tokenizers import BYTE_LEVEL_SIZE, SENTENCEPIECE_SIZE

        if source.tokenizer.small_world is not None:
            return {"bytelevel": BYTE_LEVEL_SIZE, "sentencepiece": SENTENCEPIECE_SIZE}[source.tokenizer.small_world]
        known = vocabulary(Path(str(source.tokenizer.path)))
        return None if known is None else known.size

    def data(self, name: str) -> Lengths:
        """The size of a training set of the matrix; its file is read where it is here."""
        source = self.matrix.data[name]
        if isinstance(source, SmallWorldData):
            size, a_token = _SMALL_WORLD[source.small_world], SMALL_WORLD_BYTES_A_TOKEN
        else:
            size, a_token = self._file_size(source), BYTES_A_TOKEN
        self.sources[name] = (
            f"data {name}: {size.examples:,} examples, {size.prompt_bytes:.0f} + {size.response_bytes:.0f} bytes ({size.source})"
        )
        examples = min(size.examples, source.limit or size.examples)
        return Lengths(examples, size.prompt_bytes / a_token, size.response_bytes / a_token + 1)

    def _file_size(self, source: FileData) -> DataSize:
        path = Path(source.file)
        if not path.is_file():
            size = published_data(source.file)
            assert size is not None  # not_here refuses it
            return size
        from dskd.io import read_objects
        from harness.steps.data import apply_templates

        if source.columns is not None:
            rows: list[dict[str, Any]] = list(apply_templates(path, source.columns))
        else:
            rows = [row for _, row in read_objects(path)]
        keys = ("prompt",) if "prompt" in rows[0] else ("instruction", "input")
        prompts, outputs = (
            sum(len(str(row.get(key, "")).encode()) for row in rows for key in of) for of in (keys, ("output",))
        )
        return DataSize(len(rows), prompts / len(rows), outputs / len(rows), "counted")

    def _add(
        self,
        kind: str,
        what: str,
        steps: int | None,
        tokens: float,
        operations: float,
        memory: float,
        disk: float = 0.0,
    ) -> None:
        hours = self.found.device.hours(operations)
        self.found.work.append(Work(kind, what, steps, tokens, operations, memory, hours, disk))


def _signal_bytes(teacher: Shape, options: Mapping[str, Any], settings: SignalSettings, data: Lengths) -> float:
    if settings.kind == "top_k":
        a_token = settings.k * 8  # an id and a probability
    else:
        a_token = teacher.hidden * (bytes_a_number(options) if settings.stored_dtype == "same" else 2)
    return data.examples * data.response_tokens * a_token


def launch_shape(matrix: Matrix) -> dict[str, Any]:
    """{"processes": …, "sharded": "FSDP" or "DEEPSPEED" where the student's state is spread over them, else ""}."""
    processes, sharded = matrix.launch.processes, ""
    if matrix.launch.accelerate_config is not None:
        from dskd.training.launch import configuration_file

        settings = yaml.safe_load(configuration_file(matrix.launch.accelerate_config).read_text(encoding="utf-8"))
        if isinstance(settings, Mapping):
            processes = processes or settings.get("num_processes")
            kind = str(settings.get("distributed_type", ""))
            sharded = kind if kind in {"FSDP", "DEEPSPEED"} else ""
    return {"processes": processes or 1, "sharded": sharded}
