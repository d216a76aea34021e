"""Where the models and the data of a training came from, as the student's folder says it: names, hub ids and licences, no paths."""

from __future__ import annotations

from dskd import hub
from dskd.training.provenance import Origin, origin_of_path
from harness.steps.base import Input, ModelInput
from harness.steps.base_model import FirstLayers, ModelCopy, ModelFolder, NewModel
from harness.steps.data import FileExamples, WorldExamples
from harness.steps.endpoint_responses import EndpointResponses
from harness.steps.hub_data import HubExamples
from harness.steps.kept_responses import KeptResponses
from harness.steps.served_model import ServedModel
from harness.steps.several_teachers import SeveralTeachers
from harness.steps.teacher_responses import TeacherResponses
from harness.steps.text_mixture import TextMixture


def model_origin(model: ModelInput) -> Origin:
    """Where a model came from."""
    if isinstance(model, ModelCopy):
        return model_origin(model.origin).model_copy(update={"name": model.name})
    if isinstance(model, ModelFolder):
        return origin_of_path(model.folder, model.name)
    if isinstance(model, FirstLayers):
        base = model_origin(model.layers_of)
        made = f"the first {model.layers} layers of {base.name}, trained further" if model.training else ""
        made = made or f"the first {model.layers} layers of {base.name}"
        return Origin(name=model.name, made=made, license=base.license)
    if isinstance(model, NewModel):
        trained = f", trained on {', '.join(stage.data.set_name for stage in model.training)}" if model.training else ""
        return Origin(name=model.name, made=f"random weights ({model.config['model_type']}){trained}")
    if isinstance(model, SeveralTeachers):
        return Origin(name=model.name, made=f"several teachers: {', '.join(model.names)}")
    if isinstance(model, ServedModel):
        known = None if model.head is None else origin_of_path(model.head.folder, model.name)
        served = f"behind an address, as {model.model}" if model.model else "behind an address"
        return (known or Origin(name=model.name)).model_copy(update={"made": served})
    return Origin(name=model.name, made=f"made by {type(model).__name__}")


def data_origin(examples: Input) -> Origin:
    """Where a training set came from."""
    if isinstance(examples, TeacherResponses | EndpointResponses | KeptResponses | TextMixture):
        asked = data_origin(examples.examples)
        made = f"responses of {examples.teacher.name}"
        if isinstance(examples, TextMixture):
            made = f"{examples.share:g} of it {made}"
        return asked.model_copy(update={"name": examples.name, "made": made})
    if isinstance(examples, HubExamples):
        rows = examples.source
        card = hub.snapshot_folder(
            rows.repository, rows.commit, "dataset"
        )  # which is there where the card was downloaded
        return origin_of_path(card, examples.name)
    if isinstance(examples, FileExamples):
        return origin_of_path(examples.file, examples.name).model_copy(update={"sha256": examples.sha256})
    if isinstance(examples, WorldExamples):
        return Origin(name=examples.name, made=f"generated: the set {examples.set} of the small world")
    return Origin(name=getattr(examples, "name", type(examples).__name__))
