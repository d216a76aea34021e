"""Run by a fixture: the vLLM engine's answers for `name=folder …` as JSON on standard output, which holds nothing else."""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from pathlib import Path
from typing import Any

from harness.engines import create_engine
from harness.engines.base import Sampling
from helpers.engine_requests import PROMPTS, STOP, complete, requests_of
from helpers.scored_pairs import pairs_of

looked_up = []
look_up = socket.getaddrinfo


def watch(host: Any, *rest: Any, **more: Any) -> Any:
    looked_up.append(str(host))
    return look_up(host, *rest, **more)


def ask(engine: Any, stop: Any, order: Any = tuple(range(16)), **settings: Any) -> Any:
    requests = requests_of(stop, **settings)
    counts = []
    engine.on_finished = counts.append
    completions = complete(engine, [requests[n] for n in order])
    by_number = dict(zip(order, map(dataclasses.asdict, completions), strict=True))
    return {"completions": [by_number[n] for n in range(len(PROMPTS))], "finished": sum(counts)}


def score(engine: Any) -> Any:
    counts: list[int] = []
    pairs = pairs_of(engine)
    engine.on_finished = counts.append
    found = [dataclasses.asdict(each) for each in engine.loglikelihoods(pairs)]
    return {"scores": found, "finished": sum(counts)}


socket.getaddrinfo = watch
answers = {}
for argument in sys.argv[1:]:
    name, folder = argument.split("=", 1)
    engine = create_engine("auto", Path(folder), seed=3)
    sampled = {"temperature": 1.0, "top_p": 0.95}
    answers[name] = {
        "engine": engine.name,
        "stopped": ask(engine, STOP),
        "free": ask(engine, ()),
        "sampled": ask(engine, (), **sampled),
        "sampled_again": ask(engine, (), **sampled),
        "loglikelihoods": score(engine),
        "ids": [(each.prompt_ids, each.ids) for each in engine.complete(PROMPTS, Sampling(max_new_tokens=24))],
    }
    engine.close()
    if name == "llama":  # another batch size and order, and the engine that masks n-grams
        engine = create_engine("auto", Path(folder), seed=3, max_batch_size=3, no_repeat_ngram=True)
        answers[name]["sampled_elsewhere"] = ask(engine, (), range(len(PROMPTS))[::-1], **sampled)
        answers[name]["loglikelihoods_elsewhere"] = score(engine)
        answers[name]["no_repeat_ngram"] = ask(engine, (), no_repeat_ngram=2)
        engine.close()
answers["looked_up"] = looked_up
json.dump(answers, sys.stdout)
