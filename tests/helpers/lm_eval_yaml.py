"""lm-eval's own task files, read by lm-eval's own reader, and its filters and metrics built from them."""

from __future__ import annotations

from pathlib import Path

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks._yaml_loader import load_yaml

TASKS = Path(lm_eval.__file__).parent / "tasks"


class Rules:
    """The filters of a task file and its exact_match, on many outputs at once."""

    def __init__(self, file: str) -> None:
        config = load_yaml(TASKS / file)
        self.filters = {}
        for entry in config["filter_list"]:
            steps = [dict(step) for step in entry["filter"]]
            self.filters[entry["name"]] = build_filter_ensemble(
                entry["name"], [(step.pop("function"), step or None) for step in steps]
            )
        (metric,) = config["metric_list"]
        assert metric["metric"] == "exact_match"
        self.settings = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}

    def extracted(self, name: str, outputs: list[str]) -> list[str]:
        """What the filter named so takes out of each output."""
        instances = [Instance("generate_until", {}, (), 0, resps=[output]) for output in outputs]
        self.filters[name].apply(instances)
        return [instance.filtered_resps[name] for instance in instances]

    def right(self, extracted: str, reference: str) -> bool:
        """Whether exact_match holds it for right."""
        return bool(exact_match_hf_evaluate([extracted], [reference], **self.settings)["exact_match"])
