"""Tasks of the installed lm-eval by name: `lm_eval/NAME` in a matrix, with lm-eval's own prompts, filters and metrics.

A task's yaml is looked for in the folder that HARNESS_LM_EVAL_TASKS names, then among lm-eval's own. Planning refuses what does
not fit: anything but `generate_until`, sampling, metrics over the whole corpus, generated code (lm-eval runs it outside of the
sandbox). The data is read, from wherever the yaml says, for the prompts and for the evaluation's identity.

The metrics have lm-eval's names with their filters, `exact_match,strict-match`, and the first is the headline; their values, 0 to
1 in lm-eval, are multiplied by 100. A model with a template is given the whole prompt as one instruction. Examples are drawn as
lm-eval draws them by default (seed 1234), for all documents in their order, so that a limit changes no prompt.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dskd.data.progress_bars import without_bars
from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Instruction
from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics.sample import INVALID, Advance, SampleScore, score_each
from harness.tasks.task import Doc, Metric, Task, documents_digest

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

LM_EVAL = "lm_eval/"  # names of tasks that begin so are lm-eval's
VARIABLE = "HARNESS_LM_EVAL_TASKS"
_FEWSHOT_SEED = 1234  # lm-eval's default
_MAX_NEW_TOKENS = 256  # lm-eval's default
# Metrics that are 0 or 1 on each output, whose proportions get Wilson's interval.
_BINARY = ("exact_match", "acc")


class LmEvalTask(Task):
    """A generate_until task of lm-eval; `source` is its yaml file."""

    def __init__(self, name: str, source: Path) -> None:
        config = _config(source, resolve_func=False)
        _refuse(name, config)
        generation = config.get("generation_kwargs") or {}
        until = generation.get("until", config.get("fewshot_delimiter", "\n\n"))
        self.source = source
        self.name = f"{LM_EVAL}{name}"
        self.version = str((config.get("metadata") or {}).get("version", "Yaml"))
        self.metrics = _metrics(name, config)
        self.max_new_tokens = generation.get("max_gen_toks", _MAX_NEW_TOKENS)
        self.stop = (until,) if isinstance(until, str) else tuple(until or ())

    @cached_property
    def _theirs(self) -> ConfigurableTask:
        """lm-eval's task with its data. InputError where that cannot be had."""
        from datasets.exceptions import DatasetsError
        from lm_eval.api.task import ConfigurableTask

        config = _config(self.source, resolve_func=True)
        try:
            with without_bars(keep_on_terminals=True):
                theirs = ConfigurableTask(config=config)
        except (OSError, ValueError, ImportError, RuntimeError, DatasetsError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"task {self.name}: lm-eval cannot load its data set {config.get('dataset_path')}: {reason}; "
                "fix: run where the hub can be reached or the data set is in its cache"
            ) from error
        theirs.set_fewshot_seed(_FEWSHOT_SEED)
        return theirs

    def documents(self) -> list[Doc]:
        """Return all documents by their row number from 0. InputError where their data cannot be had."""
        theirs, docs = self._theirs, []
        for number, row in enumerate(theirs.eval_docs):
            prompt = theirs.fewshot_context(row, theirs.config.num_fewshot or 0, gen_prefix=theirs.doc_to_prefix(row))
            docs.append({"id": str(number), "prompt": prompt, "target": theirs.doc_to_target(row), "fields": row})
        return docs

    def identity(self) -> dict[str, Any]:
        """Return the hashes of the task's files and of its documents, prompts included, and lm-eval's version."""
        return {
            "lm_eval": importlib.metadata.version("lm_eval"),
            "yaml": files_digest(self.source),
            "documents": documents_digest(self.docs()),
        }

    def prompt(self, doc: Doc) -> str:
        """Return lm-eval's prompt: description, examples and question."""
        return doc["prompt"]

    def instruction(self, doc: Doc) -> Instruction:
        return Instruction(doc["prompt"])

    def as_chat(self) -> Self:
        """Return the task itself: lm-eval stops at its strings with a template, too."""
        return self

    def reference(self, doc: Doc) -> str:
        """Return the target, the first where there are several. What scores 100 is up to the task."""
        target = doc["target"][0] if isinstance(doc["target"], list) and doc["target"] else doc["target"]
        return f"{self._theirs.config.target_delimiter}{target}"

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        return score_each(self._score, docs, outputs, advance)

    def _score(self, doc: Mapping[str, Any], output: str) -> SampleScore:
        from lm_eval.api.instance import Instance

        scores: dict[str, float | None] = {metric.name: None for metric in self.metrics}
        extracted: dict[str, str | None] = {}
        for ensemble in self._theirs._filters:
            instance = Instance("generate_until", dict(doc["fields"]), (doc["prompt"], {}), 0, resps=[output])
            ensemble.apply([instance])
            filtered = instance.filtered_resps[ensemble.name]
            extracted[ensemble.name] = None if str(filtered) == "[invalid]" else str(filtered)
            results = self._theirs.process_results(dict(doc["fields"]), [filtered])
            for name, value in results.items():
                if (key := f"{name},{ensemble.name}") in scores:
                    scores[key] = self._percent(key, value)
        headline = self.metrics[0]
        outcome = "scored" if headline.kind != "binary" else "correct" if scores[headline.name] else "wrong"
        read = extracted[headline.name.rpartition(",")[2]]
        return SampleScore(scores, extracted, INVALID if read is None else outcome)

    def _percent(self, name: str, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if not 0.0 <= number <= 1.0:
            raise InputError(
                f"task {self.name}: its metric {name} gave {str(value)[:40]} on one output; "
                "fix: choose a task whose metrics are 0 to 1"
            )
        return 100.0 * number


def load(name: str) -> LmEvalTask:
    """Return the task that lm-eval calls so. InputError where there is none, or where it is of a kind that is not run here."""
    return LmEvalTask(name, find(name, os.environ.get(VARIABLE)))


def find(name: str, folder: str | None) -> Path:
    """Return the yaml file of a task. InputError where no file has it."""
    if folder and not Path(folder).is_dir():
        raise InputError(f"{VARIABLE}: {folder} is not a folder; fix: set it to the folder of your own lm-eval tasks")
    task_line = re.compile(rb"^task:[ \t]*[\"']?" + re.escape(name.encode()) + rb"[\"']?[ \t\r]*(#.*)?$", re.MULTILINE)
    for root in (*([Path(folder)] if folder else []), tasks_of_lm_eval()):
        files = sorted(root.rglob("*.yaml"))
        # Most files are called as their task; to open all 14,000 takes a second, and more on a slow disk.
        files.sort(key=lambda path: path.stem.replace("-", "_") != name.replace("-", "_"))
        for path in files:
            if task_line.search(path.read_bytes()):
                return path
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


def _config(source: Path, *, resolve_func: bool) -> dict[str, Any]:
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


def _refuse(name: str, config: Mapping[str, Any]) -> None:
    """InputError for a task of a kind that is not run here."""
    generation = config.get("generation_kwargs") or {}
    output_type = config.get("output_type", "generate_until")
    if "class" in config:
        reason, fix = "it is written in Python, not in yaml", "choose one that is a yaml file"
    elif output_type != "generate_until":
        reason = f"its output_type is {output_type}"
        fix = "choose a generate_until task: models are evaluated by generation"
    elif config.get("unsafe_code"):
        reason, fix = "it runs generated code outside of the sandbox", "use the harness's own humaneval or mbpp"
    elif config.get("doc_to_image") or config.get("doc_to_audio"):
        reason, fix = "it asks about images or sounds", "choose a task of text"
    elif generation.get("do_sample") or float(generation.get("temperature") or 0) > 0 or config.get("repeats", 1) > 1:
        reason, fix = "it samples its answers", "choose a greedy task"
    else:
        return
    raise InputError(f"task {LM_EVAL}{name}: {reason}; fix: {fix}")


def _metrics(name: str, config: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metrics under each filter, with lm-eval's names. InputError for one that is not a mean over documents."""
    filters = [entry["name"] for entry in config.get("filter_list") or [{"name": "none"}]]
    entries = []
    for entry in config.get("metric_list") or [{"metric": "exact_match"}]:
        metric = str(entry["metric"])
        metric = metric.rpartition(".")[2] if "/" in metric else metric  # a function, by its file
        aggregation, higher = entry.get("aggregation"), entry.get("higher_is_better")
        if aggregation is None or higher is None:
            from lm_eval.api.registry import get_metric_aggregation, is_higher_better

            default = get_metric_aggregation(metric)
            aggregation = aggregation or getattr(default, "__name__", None)
            higher = is_higher_better(metric) if higher is None else higher
        if aggregation != "mean":
            raise InputError(
                f"task {LM_EVAL}{name}: its metric {metric} is computed over the whole corpus and not a mean, so samples have no "
                "scores; fix: choose a task whose metrics are means"
            )
        entries.append((metric, bool(higher)))
    return tuple(
        Metric(f"{metric},{filtered}", higher, "binary" if metric in _BINARY else "continuous")
        for filtered in filters
        for metric, higher in entries
    )
