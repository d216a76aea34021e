"""What jobs read and share: the small world, tokenised data, models, teachers' signals and answers.

Each with the jobs that make it and what it is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.io import read_object
from dskd.tokenization.prompt_templates import KEY, Template
from harness.config.matrix import (
    Evaluation,
    FileData,
    FirstLayersModel,
    Matrix,
    NewModel,
    PathModel,
    SignalSettings,
    TokenizerSource,
    Training,
)
from harness.runs.identity import CODE_VERSIONS, FileHashes, Identity
from harness.runs.job_spec import JobSpec, OutputSpec
from harness.runs.store import artifact_folder

RUNNERS = {
    "world": "harness.steps.data",
    "data": "harness.steps.data",
    "answers": "harness.steps.teacher_responses",
    "model": "harness.steps.base_model",
    "signal": "harness.steps.teacher_cache",
    "train": "harness.steps.training",
    "evaluate": "harness.steps.evaluation",
}
_WORLD_SEED = 0


@dataclass(frozen=True)
class Node:
    """A job and the ids of the jobs whose outputs it reads."""

    spec: JobSpec
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """Something that a job reads: where it will be, what it is made of, and the jobs that make it (none for a user's folder)."""

    path: Path
    parts: dict[str, Any]
    needs: tuple[str, ...] = ()


class Artifacts:
    """Describes the shared artifacts of a matrix; `nodes` collects the jobs that make them, each after what it needs.

    `source` is the matrix file, for errors; `root` the run's folder.
    """

    def __init__(self, matrix: Matrix, source: str, root: Path, hashes: FileHashes) -> None:
        self.matrix = matrix
        self.source = source
        self.root = root.resolve()
        self.hashes = hashes
        self.nodes: dict[str, Node] = {}
        self._models: dict[str, Artifact] = {}

    @contextmanager
    def _at(self, where: str) -> Iterator[None]:
        """Put file and key before an error about what they name."""
        try:
            yield
        except InputError as error:
            if str(error).startswith(f"{self.source}: "):
                raise
            raise InputError(f"{self.source}: {where}: {error}") from None

    def add(self, node: Node) -> tuple[str, ...]:
        """Collect a job, once; its id as what an artifact needs."""
        self.nodes.setdefault(node.spec.id, node)
        return (node.spec.id,)

    def _artifact(
        self,
        kind: str,
        folder_kind: str,
        title: str,
        parts: dict[str, Any],
        product: str,
        arguments: dict[str, Any],
        needs: Sequence[str],
    ) -> Artifact:
        identity = Identity.of(parts)
        folder = artifact_folder(folder_kind, identity)
        spec = JobSpec(
            id=f"{kind}:{identity.short}",
            kind=kind,
            title=title,
            runner=RUNNERS[kind],
            root=str(self.root),
            folder=folder,
            outputs=[OutputSpec(folder=folder, identity=identity, product=product)],
            arguments=arguments,
        )
        return Artifact(self.root / folder / product, parts, self.add(Node(spec, tuple(dict.fromkeys(needs)))))

    # --- data and tokenizers ---

    def world(self) -> Artifact:
        """The small world's files."""
        from harness.smallworld.world import SMALL_WORLD_VERSION

        parts = {"code": CODE_VERSIONS["world"], "version": SMALL_WORLD_VERSION, "seed": _WORLD_SEED}
        return self._artifact("world", "world", "small world", parts, "world", {"seed": _WORLD_SEED}, ())

    def tokenizer(self, model: str) -> Artifact:
        """The tokenizer folder of a model, known before the model is made."""
        name, source = self._origin(model)
        vocabulary = self.vocabulary(model)
        changes = _tokenizer_changes(source)
        if not changes:
            return vocabulary
        parts = {**vocabulary.parts, **changes}
        if isinstance(source, PathModel):
            made = self.model(name)
            return Artifact(made.path, parts, made.needs)
        arguments = {"recipe": {"tokenizer_of": str(vocabulary.path), **changes}, "stages": [], "seed": 0}
        identity = {"code": CODE_VERSIONS["model"], **parts}
        title = f"tokenizer of {name}"
        made = self._artifact("model", "tokenizers", title, identity, "model", arguments, vocabulary.needs)
        return Artifact(made.path, parts, made.needs)

    def template(self, model: str) -> Template | None:
        """How a model is asked: as the matrix says, or else its folder."""
        _, source = self._origin(model)
        if source.template is not None:
            return source.template
        vocabulary = self.vocabulary(model)
        settings = vocabulary.path / "tokenizer_config.json"
        if vocabulary.needs or not settings.is_file():
            return None
        found = read_object(settings).get(KEY)
        return Template.model_validate(found) if found else None

    def vocabulary(self, model: str) -> Artifact:
        """A folder whose tokenizer has the model's vocabulary, though it may begin texts in another way."""
        name, source = self._origin(model)
        if isinstance(source, PathModel):
            return self._tokenizer_folder(source.path, f"models.{name}.path")
        return self._tokenizer_source(source.tokenizer, f"models.{name}.tokenizer.path")

    def _origin(self, model: str) -> tuple[str, PathModel | NewModel]:
        """The model that a chain of first layers starts from."""
        source = self.matrix.models[model]
        while isinstance(source, FirstLayersModel):
            model, source = source.layers_of, self.matrix.models[source.layers_of]
        return model, source

    def _tokenizer_source(self, source: TokenizerSource, where: str) -> Artifact:
        if source.path is not None:
            return self._tokenizer_folder(source.path, where)
        world = self.world()
        path = world.path / "tokenizers" / str(source.small_world)
        return Artifact(path, {"small_world": world.parts, "name": source.small_world}, world.needs)

    def _tokenizer_folder(self, path: str, where: str) -> Artifact:
        with self._at(where):
            return Artifact(Path(path).resolve(), {"files": self.hashes.tokenizer_folder(Path(path))})

    def _examples(self, name: str) -> tuple[Artifact, dict[str, Any]]:
        source = self.matrix.data[name]
        if isinstance(source, FileData):
            path = Path(source.file)
            if not path.is_file():
                raise InputError(f"{self.source}: data.{name}.file: no file '{path}'; correct the path")
            with self._at(f"data.{name}.file"):
                digest = self.hashes.file(path)
            columns = source.columns
            parts: dict[str, Any] = {"sha256": digest, "prompt": None, "output": None, **(columns or {})}
            arguments = {"columns": columns, "limit": source.limit}
            return Artifact(path.resolve(), parts), arguments
        world = self.world()
        parts = {"small_world": world.parts, "set": source.small_world}
        path = world.path / "train" / f"{source.small_world}.jsonl"
        return Artifact(path, parts, world.needs), {"columns": None, "limit": source.limit}

    def training_file(self, name: str) -> dict[str, Any]:
        """Where a training set of the matrix lies, and how it is read."""
        examples, arguments = self._examples(name)
        return {"data": name, "path": str(examples.path), **arguments}

    def answers(
        self,
        data: str,
        teacher: str,
        *,
        max_new_tokens: int,
        temperature: float,
        engine: str,
        evaluation: Evaluation,
    ) -> Artifact:
        """The prompts of a training set with the teacher's own answers; how it answers is said as for an evaluation."""
        examples, arguments = self._examples(data)
        model = self.model(teacher)
        how = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "engine": engine,
            "dtype": evaluation.dtype,
            "seed": evaluation.seed,
        }
        parts = {
            "code": CODE_VERSIONS["answers"],
            "examples": examples.parts,
            "limit": arguments["limit"],
            "teacher": model.parts,
            **how,
        }
        arguments |= {
            "examples": str(examples.path),
            "model": str(model.path),
            "max_batch_size": evaluation.max_batch_size,
            **how,
        }
        title = f"answers of {teacher} to {data}"
        needs = [*examples.needs, *model.needs]
        return self._artifact("answers", "answers", title, parts, "answers.jsonl", arguments, needs)

    def data(
        self, name: str, student: str, teacher: str | None, max_length: int, answers: Artifact | None = None
    ) -> Artifact:
        """A training set in the tokens of a student and, for distillation, its teacher; or `answers` to it in its place."""
        if answers is None:
            examples, arguments = self._examples(name)
        else:
            examples, arguments = answers, {"columns": None, "limit": None}
        sides = [self.tokenizer(student), self.tokenizer(teacher) if teacher else None]
        parts = {
            "code": CODE_VERSIONS["data"],
            "examples": examples.parts,
            "limit": arguments["limit"],
            "max_length": max_length,
            "student_tokenizer": sides[0].parts if sides[0] else None,
            "teacher_tokenizer": sides[1].parts if sides[1] else None,
        }
        arguments |= {
            "examples": str(examples.path),
            "instructions": self.template(student) is not None,
            "student": str(sides[0].path) if sides[0] else None,
            "teacher": str(sides[1].path) if sides[1] else None,
            "max_length": max_length,
        }
        title = f"data {name} for {student}" + (f" and {teacher}" if teacher else "")
        if answers is not None:
            title = f"{self.nodes[answers.needs[0]].spec.title} for {student}"
        needs = [need for artifact in (examples, *sides) if artifact for need in artifact.needs]
        return self._artifact("data", "data", title, parts, "dataset", arguments, needs)

    # --- teachers' signals ---

    def signal(self, teacher: str, data: str, *, max_length: int, dtype: str, settings: SignalSettings) -> Artifact:
        """What a teacher says about a training set, once for all its students, methods and seeds.

        It is made of the teacher's own tokens alone, so a student with another tokenizer shares it too.
        """
        model = self.model(teacher)
        examples = self.data(data, teacher, None, max_length)
        parts = {
            "code": CODE_VERSIONS["signal"],
            "teacher": model.parts,
            "data": examples.parts,
            "options": settings.options,
            "dtype": dtype,
        }
        arguments = {
            "teacher": str(model.path),
            "data": str(examples.path),
            "options": settings.options,
            "dtype": dtype,
        }
        title = f"signal of {teacher} on {data}"
        return self._artifact("signal", "signals", title, parts, "signal", arguments, [*model.needs, *examples.needs])

    # --- models ---

    def model(self, name: str) -> Artifact:
        """A model of the matrix before distillation: a user's folder, or one that a job makes."""
        if name not in self._models:
            self._models[name] = self._make_model(name)
        return self._models[name]

    def _make_model(self, name: str) -> Artifact:
        source = self.matrix.models[name]
        if isinstance(source, PathModel):
            with self._at(f"models.{name}.path"):
                folder = Path(source.path)
                tokenizer = self._tokenizer_folder(source.path, f"models.{name}.path")
                parts: dict[str, Any] = {"files": self.hashes.model_folder(folder), "tokenizer": tokenizer.parts}
            changes = _tokenizer_changes(source)
            if not changes:
                return Artifact(folder.resolve(), parts)
            parts |= {"code": CODE_VERSIONS["model"], **changes}
            recipe = {"copy_of": str(folder.resolve()), **changes}
            arguments: dict[str, Any] = {"recipe": recipe, "stages": [], "seed": 0}
            return self._artifact("model", "models", f"model {name}", parts, "model", arguments, ())
        parts, recipe, needs = self._recipe(name, source)
        stages: list[dict[str, Any]] = []
        stage_parts: list[dict[str, Any]] = []
        for stage in source.training:
            options = training_options(stage)
            data = self.data(stage.data, name, None, options["max_length"])
            stages.append({"data": str(data.path), "options": options})
            stage_parts.append({"data": data.parts, "options": identity_options(options)})
            needs += data.needs
        parts |= {"code": CODE_VERSIONS["model"], "seed": source.seed, "training": stage_parts}
        arguments = {"recipe": recipe, "stages": stages, "seed": source.seed}
        return self._artifact("model", "models", f"model {name}", parts, "model", arguments, needs)

    def _recipe(
        self, name: str, source: NewModel | FirstLayersModel
    ) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        if isinstance(source, NewModel):
            tokenizer = self.tokenizer(name)
            return (
                {"config": source.config, "tokenizer": tokenizer.parts},
                {"config": source.config, "tokenizer": str(tokenizer.path)},
                list(tokenizer.needs),
            )
        base = self.model(source.layers_of)
        available = self._layer_count(source.layers_of)
        if available is not None and source.layers > available:
            raise InputError(
                f"{self.source}: models.{name}.layers: {source.layers_of} has {available} layers, not {source.layers}; "
                f"ask for {available} or fewer"
            )
        return (
            {"layers_of": base.parts, "layers": source.layers},
            {"layers_of": str(base.path), "layers": source.layers},
            list(base.needs),
        )

    def text_config(self, name: str) -> Mapping[str, Any]:
        """The configuration of a model's text part, as far as it is known before the model is made."""
        name, source = self._origin(name)
        if isinstance(source, NewModel):
            return source.config
        with self._at(f"models.{name}.path"):
            config = read_object(Path(source.path) / "config.json")
        nested = config.get("text_config")
        return {**config, **nested} if isinstance(nested, dict) else config

    def _layer_count(self, name: str) -> int | None:
        source = self.matrix.models[name]
        if isinstance(source, FirstLayersModel):
            return source.layers
        return _layers(self.text_config(name))


def _tokenizer_changes(source: PathModel | NewModel) -> dict[str, Any]:
    """What the matrix changes about a model's tokenizer: nothing, or `add_bos_token` and `template`."""
    changes: dict[str, Any] = {}
    if isinstance(source, PathModel) and source.add_bos_token:
        changes["add_bos_token"] = True
    if source.template is not None:
        changes["template"] = source.template.model_dump()
    return changes


def _layers(config: Mapping[str, Any]) -> int | None:
    count = next((config[key] for key in ("num_hidden_layers", "n_layer") if key in config), None)
    return count if isinstance(count, int) else None


def training_options(training: Training) -> dict[str, Any]:
    """The options of a training with their defaults filled in."""
    from dskd.training.options import TrainingOptions

    return TrainingOptions.model_validate(training.options).model_dump()


def identity_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a training that can change what comes out of it."""
    from dskd.training.options import TrainingOptions

    return TrainingOptions.model_validate(options).identity()
