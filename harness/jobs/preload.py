"""Loads what jobs need before there is one, in a process that forks them: modules, and what libraries work out once for a process.

All of it is the same for every job. What depends on a job's environment, devices or random numbers is not touched.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable

from dskd.modeling.vllm_support import ENVIRONMENT
from dskd.training.provenance import package_versions
from harness.runs.environment import versions


def preload(modules: Iterable[str]) -> None:
    """Import modules, in this order."""
    modules = list(modules)
    if "vllm" in modules:
        for name, value in ENVIRONMENT.items():  # as it is before any other import of vLLM here
            os.environ.setdefault(name, value)
    for module in modules:
        importlib.import_module(module)
    if "vllm" in modules and importlib.import_module("vllm.platforms").current_platform.is_cpu():
        importlib.import_module("vllm.v1.worker.cpu_worker")  # it asks for the worker by name, once it has a model
    package_versions()
    versions()
    if "transformers.modeling_utils" in sys.modules:
        # Seven hundred patterns for the names of weights in older files, compiled when the first model is loaded.
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("llama")
