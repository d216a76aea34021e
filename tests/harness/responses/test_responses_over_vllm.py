"""Responses of a real vLLM server, against those of an engine in the process with the same weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.tokenization.prompt_templates import Instruction, Template, prompt_text, set_template
from harness.cli import main
from harness.runs.job_context import JobContext, ProgressChannel
from harness.steps.base import Step
from harness.steps.base_model import absent_model
from harness.steps.data import FileExamples
from harness.steps.endpoint_responses import REPLIES, EndpointResponses, TeacherEndpoint
from harness.steps.teacher_responses import TeacherResponses
from harness.steps.tokenizers import TokenizerFiles
from helpers.llama_folders import write_llama
from helpers.tiny_tokenizers import byte_level
from helpers.vllm_servers import VllmServer, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(find_spec("openai") is None, reason="the extra endpoints is not installed"),
]

SECRET = "vllm-test-0123456789"
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
LEARNED = {
    "Colour of the garden?": "green",
    "Colour of the fox?": "brown",
    "What is long?": "the river",
    "How many apples?": "12 apples are left",
    "What jumps?": "the quick brown fox jumps",
    "What is lazy?": "the dog",
}
UNKNOWN = ("def add", "東京 is")
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that has learned a few short answers with their end, and says what it likes to anything else."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT_TEMPLATE
    set_template(tokenizer, Template(kind="chat"))
    write_llama(folder, tokenizer=tokenizer, hidden_size=64, max_position_embeddings=256)
    teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    texts = [prompt_text(tokenizer, Instruction(asked)) + said + "<|end|>" for asked, said in LEARNED.items()]
    rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
    for _ in range(60):
        loss = sum(teacher(input_ids=row, labels=row).loss for row in rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    teacher.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    arguments = ("--max-num-seqs", "4", "--api-key", SECRET)
    server = VllmServer(model, model / "log.txt", pooling=False, name="served", arguments=arguments)
    with running(server):
        yield f"{server.url}/v1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    asked = [*LEARNED, *UNKNOWN]
    path.write_text("".join(json.dumps({"instruction": each, "output": "theirs"}) + "\n" for each in asked))
    return path


def run(step: Step, root: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    job = JobContext(root, step.folder, step.outputs, ProgressChannel())
    output = job.store.output(step.folder)
    output.begin(step.kind, step.title, step.fingerprint)
    step.run(job)
    assert output.manifest is not None
    return [json.loads(line) for line in step.path(root).read_text().splitlines()], output.manifest.report


def test_greedy_responses_are_those_of_the_engine_in_the_process(
    model: Path, url: str, data: Path, tmp_path: Path
) -> None:
    shared: dict[str, Any] = {
        "examples": FileExamples(file=data, sha256=""),
        "limit": None,
        "max_new_tokens": NEW_TOKENS,
        "temperature": 0.0,
        "seed": 0,
    }
    local = TeacherResponses(teacher=absent_model("teacher", model), engine="transformers", dtype="float32", **shared)
    rows, report = run(local, tmp_path / "run")
    assert len(rows) >= len(LEARNED)
    endpoint: dict[str, Any] = {"name": "teacher", "model": "served", "addresses": (url,)}
    tokenizer = TokenizerFiles(folder=model, files={})
    for teacher in (
        TeacherEndpoint(**endpoint, template=Template(kind="chat")),
        TeacherEndpoint(**endpoint, api="completions", tokenizer=tokenizer),
    ):
        step = EndpointResponses(teacher=teacher, **shared)
        served, served_report = run(step, tmp_path / "run")
        assert served == rows, teacher.api
        assert {name: served_report[name] for name in report if name != "cost"} == {
            name: value for name, value in report.items() if name != "cost"
        }
        replies = [json.loads(line) for line in (tmp_path / "run" / step.folder / REPLIES).read_text().splitlines()]
        assert {reply["model"] for reply in replies} == {"served"}
        assert all(reply["prompt_tokens"] > 5 for reply in replies)


def test_samples_differ_with_temperature_and_are_the_same_again(url: str, data: Path, tmp_path: Path) -> None:
    def sample(folder: str, *more: str) -> list[str]:
        where = ["--endpoint", url, "--model", "served", "--data", str(data), "--output", str(tmp_path / folder)]
        how = ["--samples", "4", "--temperature", "1.5", "--max-new-tokens", str(NEW_TOKENS), "--limit", "3", "--json"]
        result = CliRunner().invoke(main, ["teacher", "responses", *where, *how, *more])
        assert result.exit_code == 0, result.stderr
        lines = (tmp_path / folder / "_replies.jsonl").read_text().splitlines()
        replies = sorted((json.loads(line) for line in lines), key=lambda reply: (reply["prompt"], reply["sample"]))
        return [choice["text"] for reply in replies for choice in reply["choices"]]

    one, again, together = sample("one"), sample("again"), sample("together", "--together")
    assert len(one) == len(together) == 12
    assert all(len(set(found[k : k + 4])) > 1 for found in (one, together) for k in (0, 4, 8))
    assert one == again
    assert sample("other", "--seed", "1") != one


def test_what_a_server_refuses_is_one_line(
    url: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*more: str) -> str:
        where = ["--endpoint", url, "--model", "served", "--data", str(data), "--output", str(tmp_path / "out")]
        result = CliRunner().invoke(main, ["teacher", "responses", *where, *more])
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
        return result.stderr

    assert "has no model 'another'" in refused("--model", "another")
    assert "fix: lower --max-new-tokens, start its server" in refused("--max-new-tokens", "4096", "--limit", "2")
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-key-012345")
    told = refused()
    assert "refuses the API key" in told
    assert "wrong-key" not in told
