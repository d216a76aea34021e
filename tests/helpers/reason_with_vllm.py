"""Run by a test: what the vLLM engine makes of the reasoning models in folders, as JSON on standard output."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from harness.engines import create_engine
from harness.engines._types import Sampling
from helpers.reasoning_models import NEW_TOKENS, SAID, STOP

answers = []
for folder in sys.argv[1:]:
    engine = create_engine("vllm", Path(folder))
    finished: list[int] = []
    engine.on_finished = finished.append
    completions = engine.complete(list(SAID), Sampling(NEW_TOKENS, stop=STOP))
    answers.append({"completions": [dataclasses.asdict(each) for each in completions], "finished": sum(finished)})
    engine.close()
json.dump(answers, sys.stdout)
