"""A published student loads where this project is not installed: with transformers, peft and vLLM, from the hub and from a folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dskd.modeling.loading import load_model, load_tokenizer
from dskd.tokenization.prompt_templates import Instruction, prompt_text, template_of
from dskd.training.checkpoints import REPORT
from harness.publish.card import card_text
from harness.publish.files import stage
from harness.publish.student import read_student
from helpers.alone import run_alone
from helpers.hub_server import HubServer
from helpers.llama_folders import change_json


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "served") as server:
        yield server


def staged(folder: Path, target: Path, name: str = "org/student") -> Path:
    student = read_student(folder)
    stage(folder, card_text(student, name), student.provenance, target)
    return target


def blocks(folder: Path) -> list[str]:
    """The Python of a card: transformers, vLLM and, of an adapter, peft."""
    return re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def answer_here(folder: Path, new: int) -> list[int]:
    """The ids of what the student says here, asked as it was trained."""
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    question = "Why is the sky blue?"
    asked = prompt_text(tokenizer, Instruction(question) if template_of(tokenizer) else question)
    inputs = tokenizer(asked, return_tensors="pt", add_special_tokens=template_of(tokenizer) is None)
    output = model.generate(**inputs, max_new_tokens=new, do_sample=False)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("kind", ["student", "chat_student"])
def test_the_code_of_the_card_gives_from_the_hub_what_the_student_says_here(
    kind: str, hub: HubServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    published = staged(folder, tmp_path / "staged")
    hub.add_model("org/student", published)
    code = blocks(published)[0].replace("max_new_tokens=256", "max_new_tokens=8")
    code += "\nprint(output[0, inputs['input_ids'].shape[1]:].tolist())"
    printed = run_alone(code, tmp_path, hub.env)
    assert json.loads(printed.splitlines()[-1]) == answer_here(folder, 8)


def test_the_addresses_of_a_served_teacher_are_not_published(student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    shutil.copytree(student, folder)
    address = "http://gpu-7.internal:8000"
    found = {"versions": {address: "0.32.0"}, "checks": [{"found": f"{address} and {address}", "address": address}]}
    change_json(folder / REPORT, probe=found, served={"requests": 3})
    published = staged(folder, tmp_path / "staged")
    report = json.loads((published / REPORT).read_text())
    assert (report["probe"], report["served"]) == (None, {"requests": 3})
    files = [path for path in published.rglob("*") if path.is_file()]
    assert not [path for path in files if b"gpu-7.internal" in path.read_bytes()]


def test_folders_as_training_leaves_them_load_with_transformers(
    student: Path, chat_student: Path, adapted_student: Path, tmp_path: Path
) -> None:
    folders = [student, chat_student, adapted_student]
    code = (
        "import json\nfrom transformers import AutoModelForCausalLM, AutoTokenizer, pipeline\n"
        f"for folder in {list(map(str, folders))!r}:\n"
        "    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)\n"
        "    keys = [*told['missing_keys'], *told['unexpected_keys']]\n"
        "    tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "    said = pipeline('text-generation', model=folder)('The', max_new_tokens=2)\n"
        "    print(json.dumps([keys, tokenizer('The quick brown')['input_ids'], len(said)]))\n"
    )
    printed = run_alone(code, tmp_path, {"HF_HUB_OFFLINE": "1"}).splitlines()
    found = [json.loads(line) for line in printed if line.startswith("[[")]
    assert found == [[[], load_tokenizer(folder)("The quick brown")["input_ids"], 1] for folder in folders]


def test_the_adapter_alone_on_its_base_is_the_student(
    adapted_student: Path, world: Path, hub: HubServer, tmp_path: Path
) -> None:
    import torch

    published = staged(adapted_student, tmp_path / "staged")
    assert str(world) not in (published / "adapter" / "adapter_config.json").read_text()
    hub.add_model("org/student", published)
    hub.add_model("org/base", world / "cross")
    # The card's own code, with the base's name and numbers to compare.
    code = blocks(published)[2].replace("the base model's name", "org/base")
    code += "\nimport torch\nlogits = model(torch.arange(12)[None]).logits[0, -1, :5]\nprint(logits.tolist())"
    adapted = torch.tensor(json.loads(run_alone(code, tmp_path, hub.env).splitlines()[-1]))
    ids = torch.arange(12)[None]
    torch.testing.assert_close(adapted, load_model(adapted_student)(ids).logits[0, -1, :5].detach())
    with pytest.raises(AssertionError):
        torch.testing.assert_close(adapted, load_model(world / "cross")(ids).logits[0, -1, :5].detach())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["student", "chat_student"])
def test_vllm_says_what_transformers_says(
    kind: str, hub: HubServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("vllm")
    folder = request.getfixturevalue(kind)
    published = staged(folder, tmp_path / "staged")
    hub.add_model("org/student", published)
    given = 'LLM("org/student", enforce_eager=True, dtype="float32", max_model_len=128)'
    code = blocks(published)[1].replace('LLM("org/student")', given).replace("max_tokens=256", "max_tokens=8")
    code += "\nprint(list(output.outputs[0].token_ids))"
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    printed = run_alone(code, tmp_path, hub.env | settings)
    assert json.loads(printed.splitlines()[-1]) == answer_here(folder, 8)
