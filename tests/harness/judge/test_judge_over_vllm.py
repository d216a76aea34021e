"""`harness judge` with a judge behind vLLM's own OpenAI server. Its model is random: this tests the machinery, not verdicts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.processes import process_environment, python_module
from harness import tasks
from harness.cli import main
from harness.judge.folder import JUDGEMENTS
from helpers.llama_folders import write_llama
from helpers.tiny_tokenizers import byte_level

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

SECRET = "vllm-test-0123456789"
ITEMS = 4
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_API_KEY": SECRET,
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of `vllm serve`, by its module: the command asks for a distribution that vllm-cpu does not have."""
    folder = tmp_path_factory.mktemp("judge-model")
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT_TEMPLATE
    write_llama(folder, tokenizer=tokenizer, hidden_size=64, max_position_embeddings=4096)
    port = str(_free_port())
    settings = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "4096", "--max-num-seqs", "8"]
    where = ["--model", str(folder), "--served-model-name", "judge", "--host", "127.0.0.1", "--port", port]
    command = python_module("vllm.entrypoints.openai.api_server", *where, *settings)
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, env=process_environment(ENVIRONMENT), stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", folder / "log.txt")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    until = time.monotonic() + 400
    while True:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < until, "vLLM has not started"
            time.sleep(0.5)


@pytest.fixture
def judge(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    task = tasks.load("small_instruct")
    for name in ("a", "b", "long"):
        answer = {"b": "no idea", "long": "no idea " * 2000}
        lines = [{"id": doc["id"], "output": answer.get(name, task.reference(doc))} for doc in task.docs(ITEMS)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def call(folder: str, *more: str, model: str = "judge", b: str = "b") -> Any:
        files = [str(tmp_path / f"{name}.jsonl") for name in ("a", b)]
        where = ["--task", "small_instruct", "--limit", str(ITEMS), "--output-dir", str(tmp_path / folder)]
        words = [*files, *where, "--judge-model", model, "--base-url", url, "--json", *more]
        return CliRunner().invoke(main, ["judge", *words])

    return call


def judgements(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / JUDGEMENTS).read_text().splitlines()]
    return {(row["id"], row["order"], row["repeat"]): row for row in rows}


def test_every_reply_is_stored_and_nothing_is_asked_twice(judge: Callable[..., Any], tmp_path: Path) -> None:
    first = judge("one", "--max-tokens", "12", "--repeat", "2")
    assert first.exit_code == 0, first.stderr
    rows = judgements(tmp_path / "one")
    assert len(rows) == 2 * ITEMS + 4
    for row in rows.values():
        assert (row["model"], row["completion_tokens"], row["finish_reason"]) == ("judge", 12, "length")
        assert row["prompt_tokens"] > 100
        assert row["verdict"] is None
    summary = json.loads(first.stdout)
    assert summary["outcomes"]["unreadable"] == ITEMS
    assert summary["unreadable"] == {"verdicts": 2 * ITEMS, "cut_off": 2 * ITEMS, "of": 2 * ITEMS}
    content = (tmp_path / "one" / JUDGEMENTS).read_bytes()
    again = judge("one", "--max-tokens", "12", "--repeat", "2")
    assert again.stdout == first.stdout
    assert (tmp_path / "one" / JUDGEMENTS).read_bytes() == content


def test_a_folder_with_a_part_gets_the_replies_of_one_that_was_asked_at_once(
    judge: Callable[..., Any], tmp_path: Path
) -> None:
    for folder, parts in (("whole", [ITEMS]), ("parts", [1, ITEMS])):
        for limit in parts:
            result = judge(folder, "--max-tokens", "12", "--repeat", "0", "--limit", str(limit), "--parallel", "1")
            assert result.exit_code == 0, result.stderr
    whole, parted = ({key: row["reply"] for key, row in judgements(tmp_path / f).items()} for f in ("whole", "parts"))
    assert whole == parted
    assert len(whole) == 2 * ITEMS


def test_with_choices_even_a_random_model_gives_verdicts(judge: Callable[..., Any], tmp_path: Path) -> None:
    result = judge("choices", "--choices", "--max-tokens", "64", "--repeat", str(ITEMS))
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert (summary["outcomes"]["unreadable"], summary["unreadable"]["verdicts"]) == (0, 0)
    assert summary["win_rate"]["value"] is not None
    assert summary["repeats"]["verdicts"] == {
        "n": 2 * ITEMS, "share": 100.0, "unreadable": 0,
        "kappa": summary["repeats"]["verdicts"]["kappa"], "kappa_ci95": summary["repeats"]["verdicts"]["kappa_ci95"],
    }  # fmt: skip


def test_what_the_server_refuses_is_one_line(judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = judge("a", model="another")
    too_long = judge("b", b="long")
    monkeypatch.setenv("OPENAI_API_KEY", "wrong-key-012345")
    refused = judge("c")
    for result, words in ((unknown, "has no model 'another'"), (too_long, "cannot take prompt"), (refused, "API key")):
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
        assert words in result.stderr
        assert "wrong-key" not in result.stderr
