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
