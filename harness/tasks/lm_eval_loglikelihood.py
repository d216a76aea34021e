"""Tasks of lm-eval that ask for log-likelihoods: `multiple_choice` and `loglikelihood`.

Which continuations follow which contexts is lm-eval's `construct_requests`, what they score its `process_results`. The texts are
given without a chat template, as lm-eval does unless it is asked for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.engines._types import LogLikelihood
from harness.metrics.sample import Advance, SampleScore
from harness.tasks.lm_eval_task import LmEvalTask
from harness.tasks.loglikelihood_task import LogLikelihoodTask, Pair
from harness.tasks.task import Doc


class LmEvalLogLikelihoodTask(LmEvalTask, LogLikelihoodTask):
    """A multiple_choice or loglikelihood task of lm-eval."""

    def documents_of(self, rows: Iterable[Mapping[str, Any]], before: str = "") -> list[Doc]:
        """Return the documents of rows, by their numbers from 0 after `before`. InputError for a metric that is not 0 to 1."""
        docs = [self._document(f"{before}{number}", row) for number, row in enumerate(rows)]
        for doc in docs[:1]:
            # Before a model runs: some metrics are differences of log-likelihoods, of any size.
            self._score(doc, [LogLikelihood(-7.5 * (n + 1), False, 1) for n in range(len(doc["pairs"]))])
        return docs

    def _document(self, name: str, row: Mapping[str, Any]) -> Doc:
        theirs = self._theirs
        requests = theirs.construct_requests(doc=dict(row), ctx=self._context(row))
        pairs = [request.args for request in (requests if isinstance(requests, list) else [requests])]
        texts = theirs.doc_to_choice(row) if theirs.OUTPUT_TYPE == "multiple_choice" else [theirs.doc_to_target(row)]
        gold = self._gold(row, texts)
        return {
            "id": name,
            "question": self._question(row, texts, gold),
            "pairs": pairs,
            "choices": len(texts),
            "gold": gold,
            "fields": row,
        }

    def _gold(self, row: Mapping[str, Any], texts: Sequence[str]) -> int | None:
        """Which choice is right, the first where several are; None where the data names none."""
        theirs = self._theirs
        if theirs.OUTPUT_TYPE == "loglikelihood":
            return 0
        gold = theirs.doc_to_text(row) if theirs.multiple_input else theirs.doc_to_target(row)
        first = gold[0] if isinstance(gold, list) and gold else gold
        if isinstance(first, str):
            return texts.index(first) if first in texts else None
        return first if isinstance(first, int) and 0 <= first < len(texts) else None

    def _question(self, row: Mapping[str, Any], texts: Sequence[str], gold: int | None) -> str:
        """The row's text without description and examples; where each choice is a text of its own, the right one."""
        theirs = self._theirs
        if not theirs.multiple_input:
            return str(theirs.doc_to_text(row))
        return f"{texts[gold or 0]}{theirs.config.target_delimiter}{theirs.doc_to_target(row)}"

    def question(self, doc: Doc) -> str:
        return doc["question"]

    def continuations(self, doc: Doc) -> list[Pair]:
        return doc["pairs"]

    def choices(self, doc: Doc) -> list[Pair]:
        """Return the choices; after them lm-eval may ask for the same without context (`acc_mutual_info`)."""
        return doc["pairs"][: doc["choices"]]

    def reference(self, doc: Doc) -> str:
        """Return the right option, nothing where the data names none."""
        return "" if doc["gold"] is None else self.options(doc)[doc["gold"]]

    def score_loglikelihoods(
        self, docs: Sequence[Doc], found: Sequence[Sequence[LogLikelihood]], advance: Advance
    ) -> list[SampleScore]:
        scores = []
        for doc, own in zip(docs, found, strict=True):
            scores.append(self._score(doc, own))
            advance()
        return scores

    def _score(self, doc: Doc, found: Sequence[LogLikelihood]) -> SampleScore:
        from lm_eval.api.instance import Instance

        scores: dict[str, float | None] = {metric.name: None for metric in self.metrics}
        for ensemble in self._theirs._filters:
            instances = [
                Instance("loglikelihood", dict(doc["fields"]), pair, n, resps=[(each.value, each.is_greedy)])
                for n, (pair, each) in enumerate(zip(doc["pairs"], found, strict=True))
            ]
            ensemble.apply(instances)
            answers = [instance.filtered_resps[ensemble.name] for instance in instances]
            for name, value in self._theirs.process_results(dict(doc["fields"]), answers).items():
                if (key := f"{name},{ensemble.name}") in scores:
                    scores[key] = self._percent(key, value)
        outcome = {0.0: "wrong", 100.0: "correct"}.get(scores[self.metrics[0].name] or 0.0, "scored")
        return SampleScore(scores, {"chosen": self.chosen(doc, found)}, outcome)
