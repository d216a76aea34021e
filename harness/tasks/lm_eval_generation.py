"""Tasks of lm-eval whose answers a model writes: `generate_until`.

A model with a template is given the whole prompt as one instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from dskd.tokenization.prompt_templates import Instruction
from harness.metrics.sample import INVALID, Advance, SampleScore, score_each
from harness.tasks.lm_eval_task import LmEvalTask
from harness.tasks.task import Doc

_MAX_NEW_TOKENS = 256  # lm-eval's default


class LmEvalGenerationTask(LmEvalTask):
    """A generate_until task of lm-eval."""

    def __init__(self, name: str, source: Path, config: Mapping[str, Any]) -> None:
        super().__init__(name, source, config)
        generation = config.get("generation_kwargs") or {}
        until = generation.get("until", config.get("fewshot_delimiter", "\n\n"))
        self.max_new_tokens = generation.get("max_gen_toks", _MAX_NEW_TOKENS)
        self.stop = (until,) if isinstance(until, str) else tuple(until or ())

    def documents_of(self, rows: Iterable[Mapping[str, Any]], before: str = "") -> list[Doc]:
        target = self._theirs.doc_to_target
        return [
            {"id": f"{before}{number}", "prompt": self._context(row), "target": target(row), "fields": row}
            for number, row in enumerate(rows)
        ]

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
