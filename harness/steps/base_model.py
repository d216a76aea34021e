"""Makes a model: from random weights, from the first layers of another, or as a copy; then its stages of supervised training."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import Template, set_template
from harness.runs.job_context import JobContext
from harness.runs.job_spec import OutputSpec
from harness.runs.records import Cost
from harness.runs.store import write_json_atomic


def run(job: JobContext) -> None:
    """Make `model/` in the job's folder; what was trained before a kill is not trained again."""
    from dskd.training.options import TrainingOptions
    from dskd.training.run import train

    (output,) = job.spec.outputs
    arguments = job.arguments
    stages = job.folder / "stages"
    joined = job.folder / "stages.json"
    if (job.folder / "model").is_dir():  # killed after the model was in place and before the job said so
        reports = json.loads(joined.read_text(encoding="utf-8"))
        _finish(job, output, reports, stages)
        return
    model = stages / "start"
    if not model.is_dir():
        job.progress.advance("new model", 0, None)
        unfinished = stages / "start.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        make_start(arguments["recipe"], arguments["seed"], unfinished)
        unfinished.rename(model)
    reports = []
    for index, stage in enumerate(arguments["stages"]):
        folder = stages / str(index)
        done = folder / "report.json"
        if not done.is_file():
            name = f"stage {index + 1} of {len(arguments['stages'])}"
            report = train(
                data=Path(stage["data"]),
                student=model,
                teacher=None,
                method="sft",
                method_options={},
                options=TrainingOptions.model_validate(stage["options"]),
                seed=arguments["seed"],
                output=folder,
                progress=training_progress(job, name),
            )
            write_json_atomic(done, json.loads(report.model_dump_json()))
        reports.append(json.loads(done.read_text(encoding="utf-8")))
        model = folder / "model"
    write_json_atomic(joined, reports)
    model.replace(job.folder / "model")
    _finish(job, output, reports, stages)


def _finish(job: JobContext, output: OutputSpec, reports: list[dict[str, Any]], stages: Path) -> None:
    job.finish(output, report={"stages": reports}, cost=training_cost(job, reports))
    shutil.rmtree(stages, ignore_errors=True)


def make_start(recipe: Mapping[str, Any], seed: int, output: Path) -> None:
    """Make the model that the first stage starts from."""
    if "layers_of" in recipe:
        first_layers(Path(recipe["layers_of"]), recipe["layers"], output)
    elif "copy_of" in recipe:
        copy_model(Path(recipe["copy_of"]), output)
        if recipe.get("add_bos_token"):
            add_bos_token(output)
    elif "tokenizer_of" in recipe:
        load_tokenizer(Path(recipe["tokenizer_of"])).save_pretrained(output)
    else:
        new_model(recipe["config"], Path(recipe["tokenizer"]), seed, output)
    if "template" in recipe:
        give_template(Template.model_validate(recipe["template"]), output)


def training_cost(job: JobContext, reports: Sequence[Mapping[str, Any]], **measured: Any) -> Cost:
    """The cost of trainings from their reports, and what else was measured.

    Null, with the reason, where one was resumed and so measured in part only.
    """
    resumed = [report["resumed_from_step"] for report in reports if report["resumed_from_step"]]
    if resumed:
        reason = f"resumed at step {resumed[0]}: only the rest was measured"
        return job.cost(**{**measured, "teacher_examples": None}, wall_seconds=None, reason=reason)
    sums = {
        key: sum(report[key] for report in reports)
        for key in ("train_seconds", "teacher_seconds", "teacher_examples", "tokens")
    }
    speed = sums["tokens"] / sums["train_seconds"] if sums["train_seconds"] else None
    return job.cost(**{**sums, "tokens_per_second": speed, **measured})


def training_progress(job: JobContext, stage: str) -> Any:
    """A callback for `dskd.training.run.train`: steps go to who watches, losses to the log."""

    def report(event: dict[str, Any]) -> None:
        job.progress.advance(stage, event["step"], event["steps"])
        if "loss" in event:
            terms = [f"{name} {value:.4g}" for name, value in event.items() if isinstance(value, float)]
            print(f"{stage}: step {event['step']} of {event['steps']}: {', '.join(terms)}", flush=True)

    return report


def new_model(config: dict[str, Any], tokenizer_folder: Path, seed: int, output: Path) -> None:
    """Save a model with random weights and its tokenizer.

    The vocabulary size and the special ids come from the tokenizer, so that they cannot disagree with it. InputError for a
    configuration that transformers does not know or accept.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(tokenizer_folder)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    try:
        made = AutoConfig.for_model(**{"vocab_size": len(tokenizer), **special, **config})
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"config: transformers does not accept it ({str(error).splitlines()[0]}); correct it"
        ) from error
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    print(f"{config['model_type']} with {sum(p.numel() for p in model.parameters()):,} parameters")


def first_layers(source: Path, count: int, output: Path) -> None:
    """Save the first `count` decoder layers of a model, with its embedding, final norm, head and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", local_files_only=True)
    base, config = model.base_model, model.config.get_text_config()
    attribute = next((name for name in ("layers", "h") if hasattr(base, name)), None)
    if attribute is None:
        raise InputError(
            f"{source}: {type(model).__name__} has its layers in no known place; give a model with `layers`"
        )
    layers = getattr(base, attribute)
    if count > len(layers):
        raise InputError(f"{source}: has {len(layers)} layers, not {count}; ask for fewer")
    setattr(base, attribute, layers[:count])
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types[:count])
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(output)
    print(f"first {count} of {len(layers)} layers, {sum(p.numel() for p in model.parameters()):,} parameters")


def copy_model(source: Path, output: Path) -> None:
    """Copy a model's folder with a tokenizer of its own.

    Weights are linked where the file system can, so that a large model does not take its room twice; what is written anew is not.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    output.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if not file.is_file() or file.name.startswith(("tokenizer", "chat_template")):
            continue
        try:
            os.link(file, output / file.name)
        except OSError:  # another file system, or one without links
            shutil.copy2(file, output / file.name)
    _save_tokenizer(tokenizer, output)


def add_bos_token(folder: Path) -> None:
    """Make the tokenizer of a copied model add its begin-of-sequence token. InputError where it has none."""
    from tokenizers.processors import Sequence as Processors
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    token, identifier = tokenizer.bos_token, tokenizer.bos_token_id
    if identifier is None:
        raise InputError(f"{folder}: its tokenizer has no bos_token to add; leave out add_bos_token")
    # Tokenizer classes that know the setting undo any other change when they are loaded; the others do not know the setting.
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, add_bos_token=True)
    if tokenizer("a")["input_ids"][0] != identifier:
        template = TemplateProcessing(
            single=f"{token} $A", pair=f"{token} $A {token} $B:1", special_tokens=[(token, identifier)]
        )
        before = tokenizer.backend_tokenizer.post_processor
        tokenizer.backend_tokenizer.post_processor = Processors([before, template]) if before else template
    _save_tokenizer(tokenizer, folder)
    if AutoTokenizer.from_pretrained(folder, local_files_only=True)("a")["input_ids"][0] != identifier:
        raise InputError(f"{folder}: its tokenizer cannot be made to add {token!r}; leave out add_bos_token")
    print(f"a copy whose tokenizer adds {token!r}")


def give_template(template: Template, folder: Path) -> None:
    """Give the tokenizer in a folder a template. InputError where it cannot have this one."""
    tokenizer = load_tokenizer(folder)
    set_template(tokenizer, template)
    _save_tokenizer(tokenizer, folder)
    print(f"template {template.kind}, an answer ends with {tokenizer.eos_token!r}")


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save over what may be links to another folder's files, which must stay as they are."""
    for file in ("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"):
        (folder / file).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
