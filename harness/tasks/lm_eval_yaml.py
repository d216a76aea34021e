"""The yaml files of lm-eval's tasks: which file a task is in, what it says, and whether such a task is run here.

A task is looked for in the folder that HARNESS_LM_EVAL_TASKS names, then among lm-eval's own. What does not fit is refused while
planning: kinds of output other than `KINDS`, sampling, metrics over the whole corpus, generated code (lm-eval runs it outside of
the sandbox).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from harness.lm_eval_files import tasks_of_lm_eval
from harness.tasks.lm_eval_groups import END, KEY, tasks_of_group
from harness.tasks.task import Metric

LM_EVAL = "lm_eval/"  # names of tasks that begin so are lm-eval's
VARIABLE = "HARNESS_LM_EVAL_TASKS"
KINDS = ("generate_until", "multiple_choice", "loglikelihood")  # of output
# Metrics that are 0 or 1 on each output, whose proportions get Wilson's interval.
_BINARY = ("exact_match", "acc", "acc_norm", "acc_bytes", "acc_mutual_info")
# lm-eval's, where a task names no metrics.
_BY_DEFAULT = {
    "generate_until": ("exact_match",),
    "multiple_choice": ("acc", "acc_norm"),
    "loglikelihood": ("perplexity", "acc"),
}


def kind_of(config: Mapping[str, Any]) -> str:
    """Return the kind of output of a task."""
    return config.get("output_type", "generate_until")


def find(name: str, folder: str | None) -> Path:
    """Return the yaml file of a task. InputError where no file has it."""
    if folder and not Path(folder).is_dir():
        raise InputError(f"{VARIABLE}: {folder} is not a folder; fix: set it to the folder of your own lm-eval tasks")
    task_line = re.compile(KEY % b"task" + re.escape(name.encode()) + END, re.MULTILINE)
    roots = (*([Path(folder)] if folder else []), tasks_of_lm_eval())
    for root in roots:
        files = sorted(root.rglob("*.yaml"))
        # Most files are called as their task; to open all 14,000 takes a second, and more on a slow disk.
        files.sort(key=lambda path: path.stem.replace("-", "_") != name.replace("-", "_"))
        for path in files:
            if task_line.search(path.read_bytes()):
                return path
    if members := tasks_of_group(name, roots):
        listed = ", ".join(f"{LM_EVAL}{member}" for member in members[:3]) + (", ..." if len(members) > 3 else "")
        raise InputError(
            f"task {LM_EVAL}{name}: it is a group of {len(members)} tasks; fix: name its tasks one by one ({listed})"
        )
    raise InputError(
        f"task {LM_EVAL}{name}: lm-eval has no task of this name; fix: correct it (`lm-eval ls tasks` has them all), "
        f"or set {VARIABLE} to the folder of its yaml file"
    )


def files_digest(source: Path) -> str:
    """Return the sha256 of a task's yaml file, of those that it includes, and of the Python files beside them that they name."""
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in _files(source, set())]
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _files(path: Path, seen: set[Path]) -> Iterator[Path]:
    from lm_eval.tasks._yaml_loader import load_yaml

    if path in seen:
        return
    seen.add(path)
    yield path
    for module in sorted(set(re.findall(r"!function\s+([\w.]+)\.\w+", path.read_text(encoding="utf-8")))):
        code = path.parent / f"{module.replace('.', '/')}.py"
        if code.is_file() and code not in seen:
            seen.add(code)
            yield code
    includes = load_yaml(path, resolve_func=False, recursive=False).get("include", [])
    for include in includes if isinstance(includes, list) else [includes]:
        yield from _files((path.parent / include).resolve(), seen)


def read_config(source: Path, *, resolve_func: bool) -> dict[str, Any]:
    """The settings of a yaml file and what it includes, as lm-eval's TaskFactory hands them to a task."""
    import yaml
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        config = load_yaml(source, resolve_func=resolve_func)
    except (OSError, ValueError, ImportError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{source}: {' '.join(str(error).split())}; fix: make it a task that lm-eval reads") from error
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    return config


def refuse(name: str, config: Mapping[str, Any]) -> None:
    """InputError for a task of a kind that is not run here."""
    generation = config.get("generation_kwargs") or {}
    output_type = kind_of(config)
    if "class" in config:
        reason, fix = "it is written in Python, not in yaml", "choose one that is a yaml file"
    elif output_type not in KINDS:
        reason, fix = f"its output_type is {output_type}", f"choose a task of {', '.join(KINDS)}"
    elif config.get("unsafe_code"):
        reason, fix = "it runs generated code outside of the sandbox", "use the harness's own humaneval or mbpp"
    elif config.get("doc_to_image") or config.get("doc_to_audio"):
        reason, fix = "it asks about images or sounds", "choose a task of text"
    elif output_type == "generate_until" and (
        generation.get("do_sample") or float(generation.get("temperature") or 0) > 0 or config.get("repeats", 1) > 1
    ):
        reason, fix = "it samples its answers", "choose a greedy task"
    else:
        return
    raise InputError(f"task {LM_EVAL}{name}: {reason}; fix: {fix}")


def validation_split(config: Mapping[str, Any]) -> str | None:
    """The split of the data set to choose settings by, beside a test split and without the examples of prompts; None for none."""
    test, validation = config.get("test_split"), config.get("validation_split")
    shown = config.get("fewshot_config") or {}
    examples = config.get("fewshot_split") or shown.get("split")
    if examples is None and shown.get("samples") is None:
        examples = config.get("training_split") or validation  # lm-eval's rule
    beside = test is not None and validation not in (None, test)
    return validation if beside and not (config.get("num_fewshot") and examples == validation) else None


def metrics_of(name: str, config: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metrics under each filter, with lm-eval's names.

    InputError for one of a generation task that is not a mean over documents. Of a task scored by log-likelihoods such a metric
    (perplexity beside accuracy) is left out, and it is an error where none is left.
    """
    filters = [entry["name"] for entry in config.get("filter_list") or [{"name": "none"}]]
    means, others = [], []
    for metric, aggregation, higher in _described(config):
        if aggregation == "mean":
            means.append((metric, higher))
        else:
            others.append(metric)
    if others and (kind_of(config) == "generate_until" or not means):
        raise InputError(
            f"task {LM_EVAL}{name}: its metric {others[0]} is computed over the whole corpus and not a mean, so samples have no "
            "scores; fix: choose a task whose metrics are means"
        )
    return tuple(
        Metric(f"{metric},{filtered}", higher, "binary" if metric in _BINARY else "continuous")
        for filtered in filters
        for metric, higher in means
    )


def _described(config: Mapping[str, Any]) -> Iterator[tuple[str, str | None, bool]]:
    """(metric, the name of its aggregation, whether higher is better), with lm-eval's defaults."""
    for entry in config.get("metric_list") or [{"metric": metric} for metric in _BY_DEFAULT[kind_of(config)]]:
        metric = str(entry["metric"])
        metric = metric.rpartition(".")[2] if "/" in metric else metric  # a function, by its file
        aggregation, higher = entry.get("aggregation"), entry.get("higher_is_better")
        if aggregation is None or higher is None:
            from lm_eval.api.registry import get_metric_aggregation, is_higher_better

            default = get_metric_aggregation(metric)
            aggregation = aggregation or getattr(default, "__name__", None)
            higher = is_higher_better(metric) if higher is None else higher
        yield metric, aggregation, bool(higher)
