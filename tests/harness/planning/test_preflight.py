"""What only loading the user's tokenizers can tell, before a run writes anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dskd.errors import InputError
from harness.planning import preflight
from harness.planning.plan import make_plan
from helpers.llama_folders import change_json, write_llama


def letters(folder: Path, alphabet: str) -> Path:
    """A tokenizer folder that knows these letters, the end of its sequences, and nothing else."""
    tokenizer = Tokenizer(models.BPE(vocab={letter: k for k, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("alphabet", "methods"), [("cde", ["dskd-v2-eta"]), ("bcd", ["dskd-v2-eta"]), ("cde", ["sft"])]
)
def test_a_pair_without_a_common_token_is_refused_where_anything_is_to_be_distilled(
    tiny: dict[str, Any],
    write_matrix: Callable[[Any], Path],
    tmp_path: Path,
    alphabet: str,
    methods: list[str],
) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"prompt": "ab", "output": "ab"}) + "\n")
    tiny["data"] = {"student": {"file": str(tmp_path / "data.jsonl")}}
    for name, known in (("teacher", "ab"), ("cross", alphabet)):
        tiny["models"][name]["tokenizer"] = {"path": str(letters(tmp_path / name, known))}
        tiny["models"][name].pop("training", None)
    tiny["pairs"] = [{"teacher": "teacher", "student": "cross", "methods": methods}]
    tiny["tasks"] = {}
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    if (alphabet, methods) != ("cde", ["dskd-v2-eta"]):
        preflight.check(plan, allow_code_execution=False)
        return
    with pytest.raises(InputError) as caught:
        preflight.check(plan, allow_code_execution=False)
    assert str(caught.value).endswith(
        "matrix.yaml: pairs.0: teacher 'teacher' (3 tokens) and student 'cross' (4 tokens) share no token; "
        "fix: use a student whose tokenizer covers the same text"
    )
    assert not plan.root.exists()


def test_rollouts_by_a_vllm_that_is_not_installed_are_refused_before_anything_is_run(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny["training"]["rollouts"] = {"engine": "vllm"}
    tiny["teacher_outputs"] = {"kind": "live"}
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd"]}]
    tiny["tasks"] = {}
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    monkeypatch.setattr("dskd.compatibility.find_spec", lambda name: object())
    preflight.check(plan, allow_code_execution=False)
    monkeypatch.setattr("dskd.compatibility.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"matrix.yaml: training.rollouts.engine: vLLM is not installed; fix: set it to"
    ):
        preflight.check(plan, allow_code_execution=False)


@pytest.fixture
def with_quantised(tmp_path: Path) -> dict[str, Any]:
    """A matrix of a teacher whose quantisation transformers does not know, and a student."""
    rows = [{"prompt": "one", "output": "two"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("teacher", "student"):
        write_llama(tmp_path / name)
    change_json(tmp_path / "teacher" / "config.json", quantization_config={"quant_method": "of-another-program"})
    return {
        "schema_version": 1,
        "name": "quantised",
        "data": {"train": {"file": str(tmp_path / "train.jsonl")}},
        "models": {name: {"path": str(tmp_path / name)} for name in ("teacher", "student")},
        "pairs": [{"teacher": "teacher", "student": "student", "methods": ["kd"]}],
        "training": {"data": "train", "steps": 1},
        "seeds": [0],
        "tasks": {},
    }


def _several(content: dict[str, Any]) -> dict[str, Any]:
    """The same teacher as one of several."""
    content["models"]["both"] = {"teachers": {"teacher": 0.5, "student": 0.5}}
    content["pairs"][0]["teacher"] = "both"
    return content


@pytest.mark.parametrize("several", [False, True])
def test_a_quantised_teacher_that_transformers_does_not_load_may_be_in_a_cache_by_vllm(
    with_quantised: dict[str, Any],
    write_matrix: Callable[[Any], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    several: bool,
) -> None:
    monkeypatch.setattr("harness.steps.teacher_cache.find_spec", lambda name: object())
    content = _several(with_quantised) if several else with_quantised
    content |= {"teacher_outputs": {"kind": "hidden_states"}, "teacher_cache": {"engine": "vllm"}}
    preflight.check(make_plan(str(write_matrix(content)), output_dir=tmp_path / "run"), allow_code_execution=False)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("kind", "engine", "quantised"),
    [("live", "vllm", "teacher"), ("hidden_states", "transformers", "teacher"), ("hidden_states", "vllm", "student")],
)
def test_a_quantised_model_that_transformers_has_to_load_and_cannot_is_refused(
    with_quantised: dict[str, Any],
    write_matrix: Callable[[Any], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    engine: str,
    quantised: str,
    several: bool,
) -> None:
    monkeypatch.setattr("harness.steps.teacher_cache.find_spec", lambda name: object())
    if quantised == "student":
        (tmp_path / "teacher").rename(tmp_path / "was")
        (tmp_path / "student").rename(tmp_path / "teacher")
        (tmp_path / "was").rename(tmp_path / "student")
    content = _several(with_quantised) if several else with_quantised
    content |= {"teacher_outputs": {"kind": kind}, "teacher_cache": {"engine": engine}}
    plan = make_plan(str(write_matrix(content)), output_dir=tmp_path / "run")
    with pytest.raises(InputError, match=rf"/{quantised}: is quantised \(of-another-program\) and cannot be loaded"):
        preflight.check(plan, allow_code_execution=False)
