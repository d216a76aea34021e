"""Scores of one model's stored answers: ours, and those of lm-eval's or the benchmark's own functions on the very same text.

The model completes the first problems of each task (`harness generate`, resumable; an answer file that is there is used as it is). Each
answer is then scored by the task and by the reference, and every difference is printed. HARNESS_DATA names the data. References run in
this process, without limits and without a sandbox: use answers of a model that you trust.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dskd.modeling.loading import load_tokenizer
from harness import tasks
from harness.evaluation.generate import cache_beside, generate, prompts_of_task
from harness.protocols import GREEDY

Doc = dict[str, Any]
# The score of each answer, 0 to 100, of one of our metrics by someone else's code.
Reference = Callable[[Sequence[Doc], Sequence[str]], list[float]]


def _of_lm_eval(module: str, key: str, fields: Callable[[Doc], Doc] = lambda doc: doc) -> Reference:
    """`process_results` of a task's utils.py in the installed lm-eval."""

    def score(docs: Sequence[Doc], outputs: Sequence[str]) -> list[float]:
        # minerva_math asks for ANTLR 4.11 by its version, which only its own string rule needs: that one is left out here.
        # math-verify, which chooses its parser by the version, is imported before.
        import_module("math_verify")
        with patch("importlib.metadata.version", lambda name: "4.11" if name.startswith("antlr4") else version(name)):
            theirs: Any = import_module(f"lm_eval.tasks.{module}.utils")
        if module == "minerva_math":
            theirs.is_equiv = lambda *_: False
        found = []
        for doc, output in zip(docs, outputs, strict=True):
            value = theirs.process_results(fields(doc), [output])[key]
            parts = value if isinstance(value, list) else [value]
            found.append(100.0 * sum(map(float, parts)) / len(parts))
        return found

    return score


def _filtered(file: str, name: str, gold: Callable[[Doc], str], settings: dict[str, Any]) -> Reference:
    """The filter of a task's yaml file in lm-eval, then its exact_match."""

    def score(docs: Sequence[Doc], outputs: Sequence[str]) -> list[float]:
        import lm_eval
        from lm_eval.api.instance import Instance
        from lm_eval.api.metrics import exact_match_hf_evaluate
        from lm_eval.filters import build_filter_ensemble
        from lm_eval.tasks._yaml_loader import load_yaml

        config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / file)
        (entry,) = (each for each in config["filter_list"] if each["name"] == name)
        steps = [dict(step) for step in entry["filter"]]
        ensemble = build_filter_ensemble(name, [(step.pop("function"), step or None) for step in steps])
        found = []
        for doc, output in zip(docs, outputs, strict=True):
            instance = Instance("generate_until", {}, (), 0, resps=[output])
            ensemble.apply([instance])
            match = exact_match_hf_evaluate([instance.filtered_resps[name]], [gold(doc)], **settings)
            found.append(100.0 * float(match["exact_match"]))
        return found

    return score


def _rouge(docs: Sequence[Doc], outputs: Sequence[str]) -> list[float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    found = []
    for doc, output in zip(docs, outputs, strict=True):
        references = [doc["output"]] if isinstance(doc["output"], str) else doc["output"]
        found.append(100.0 * max(scorer.score(each, output)["rougeL"].fmeasure for each in references))
    return found


def _number(doc: Doc) -> str:
    return doc["answer"].rpartition("####")[2].strip()


_GSM8K = {
    "ignore_case": True,
    "ignore_punctuation": False,
    "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"],
}
REFERENCES: dict[str, dict[str, Reference]] = {
    "gsm8k": {
        "strict": _filtered("gsm8k/gsm8k.yaml", "strict-match", lambda doc: doc["answer"], _GSM8K),
        "flexible": _filtered("gsm8k/gsm8k.yaml", "flexible-extract", lambda doc: doc["answer"], _GSM8K),
    },
    "gsm8k_cot_8shot": {
        "strict": _filtered("gsm8k/gsm8k-cot.yaml", "strict-match", _number, _GSM8K),
        "flexible": _filtered("gsm8k/gsm8k-cot.yaml", "flexible-extract", _number, _GSM8K),
    },
    "math500": {
        "exact_match": _of_lm_eval("hendrycks_math", "exact_match"),
        "math_verify": _of_lm_eval("minerva_math", "math_verify"),
    },
    "aime2024": {"exact_match": _of_lm_eval("aime", "exact_match")},
    "aime2025": {"exact_match": _of_lm_eval("aime", "exact_match")},
    "ifeval": {
        "prompt_strict": _of_lm_eval("ifeval", "prompt_level_strict_acc"),
        "prompt_loose": _of_lm_eval("ifeval", "prompt_level_loose_acc"),
        "inst_strict": _of_lm_eval("ifeval", "inst_level_strict_acc"),
        "inst_loose": _of_lm_eval("ifeval", "inst_level_loose_acc"),
    },
    "bbh": {
        "get_answer": _filtered("bbh/cot_fewshot/boolean_expressions.yaml", "get-answer", lambda doc: doc["target"], {})
    },
    "dolly": {"rouge_l": _rouge},
}


def answers(name: str, model: Path, folder: Path, limit: int, most: int, engine: str) -> tuple[list[Doc], list[str]]:
    """The first documents of a task and what the model wrote, generated where the folder has no file of them."""
    task, path = tasks.load(name), folder / f"{name}.jsonl"
    if not path.is_file():
        prompts = prompts_of_task(task, load_tokenizer(model), limit, min(most, task.max_new_tokens))
        cache = cache_beside(path, model, engine, "float32")
        print(f"{name}: generating {len(prompts.texts)} answers", file=sys.stderr, flush=True)
        lines = generate(model, prompts, protocol=GREEDY, engine=engine, cache=cache)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        cache.unlink(missing_ok=True)
    written = {line["id"]: line["output"] for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    docs = [doc for doc in task.docs() if doc["id"] in written]
    return docs, [written[doc["id"]] for doc in docs]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: HARNESS_DATA=data python tests/benchmarks/agreement.py --model models/gemma --answers answers --limit 50",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--answers", type=Path, required=True, help="folder of the stored answers")
    parser.add_argument("--limit", type=int, default=50, help="problems of each task")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="tokens of an answer, at most")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--tasks", nargs="+", default=list(REFERENCES), choices=list(REFERENCES))
    options = parser.parse_args()
    options.answers.mkdir(parents=True, exist_ok=True)
    print("| task | n | metric | ours | reference | differences |")
    print("|---|---|---|---|---|---|")
    for name in options.tasks:
        docs, outputs = answers(
            name, options.model, options.answers, options.limit, options.max_new_tokens, options.engine
        )
        scores = tasks.load(name).score_many(docs, outputs, allow_code_execution=True)
        for metric, reference in REFERENCES[name].items():
            ours = [score.scores[metric] or 0.0 for score in scores]
            theirs = reference(docs, outputs)
            different = [doc["id"] for doc, a, b in zip(docs, ours, theirs, strict=True) if abs(a - b) > 1e-9]
            means = " | ".join(f"{sum(values) / len(values):.2f}" for values in (ours, theirs))
            print(f"| {name} | {len(docs)} | `{metric}` | {means} | {', '.join(different) or 'none'} |", flush=True)


if __name__ == "__main__":
    main()
