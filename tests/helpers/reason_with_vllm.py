"""Run by a fixture: what the vLLM engine makes of the reasoning models `name=folder …`, as JSON on standard output."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from harness.engines import create_engine
from helpers.reasoning_models import LIMITS, SAID

answers = {}
for argument in sys.argv[1:]:
    name, folder = argument.split("=", 1)
    engine = create_engine("vllm", Path(folder), no_repeat_ngram=name == "special")
    answers[name] = {}
    for settings, sampling in LIMITS.items():
        if sampling.no_repeat_ngram and name != "special":
            continue  # an engine that masks n-grams is made otherwise: one is enough
        finished: list[int] = []
        engine.on_finished = finished.append
        completions = engine.complete(list(SAID), sampling)
        found = {"completions": [dataclasses.asdict(each) for each in completions], "finished": sum(finished)}
        answers[name][settings] = found
    engine.close()
json.dump(answers, sys.stdout)
