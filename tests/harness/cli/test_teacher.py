"""`harness teacher serve-command` prints a line that starts a server, and `harness teacher check` finds out whether it is the teacher."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner, Result

from dskd.teachers.probe.texts import PLAIN
from harness.cli import main
from helpers.llama_folders import change_json, change_weights, write_adapter, write_llama
from helpers.pooling_server import PoolingServer
from helpers.tiny_tokenizers import LINES, sentencepiece
from helpers.trained_llama import write_trained_llama
from helpers.vllm_servers import ENVIRONMENT, free_port


def harness(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["teacher", *map(str, arguments)])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`the teacher`, of head sizes that vLLM runs on a CPU, in a folder that a shell has to be told with quotes; `other`; and
    `permuted`, the teacher with the rows of its head in another order."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("the teacher", "other")):
        write_trained_llama(folder / name, [*LINES[:5], *PLAIN], seed=seed, hidden_size=64)
    shutil.copytree(folder / "the teacher", folder / "permuted")
    change_weights(
        folder / "permuted", lambda tensors: {**tensors, "lm_head.weight": tensors["lm_head.weight"].flip(0)}
    )
    return folder


@pytest.fixture
def server(models: Path) -> Iterator[PoolingServer]:
    with PoolingServer(models / "the teacher") as server:
        yield server


def test_the_line_for_hidden_states(models: Path) -> None:
    line = harness(
        "serve-command", models / "other", "--dtype", "bfloat16", "--tensor-parallel", 2, "--port", 8001
    ).stdout
    assert shlex.split(line) == [
        *("vllm", "serve", str(models / "other"), "--runner", "pooling", "--convert", "embed"),
        *("--pooler-config", '{"task": "token_embed", "use_activation": false}'),
        *("--dtype", "bfloat16", "--tensor-parallel-size", "2", "--port", "8001"),
    ]
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("top_k", ["--max-logprobs", "50", "--max-num-batched-tokens", "2048"]),
        ("text_log_probabilities", ["--max-num-batched-tokens", "2048"]),
        ("responses", []),
    ],
)
def test_a_server_of_log_probabilities_or_text_is_an_ordinary_one(models: Path, kind: str, more: list[str]) -> None:
    line = harness("serve-command", models / "other", "--kind", kind, "--k", 50, "--name", "t").stdout
    assert shlex.split(line) == [
        *("vllm", "serve", str(models / "other"), *more, "--served-model-name", "t", "--port", "8000")
    ]


def test_a_name_on_the_hub_is_served_at_its_revision() -> None:
    words = shlex.split(harness("serve-command", "org/name@v2").stdout)
    assert words[:5] == ["vllm", "serve", "org/name", "--revision", "v2"]
    assert "--revision" not in harness("serve-command", "org/name").stdout


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"model_type": "modernbert-decoder"}, "hidden_states", "a dense layer and a norm between"),
        ({"architectures": ["BertForMaskedLM"]}, "top_k", "BertForMaskedLM is no causal language model"),
        ({"is_encoder_decoder": True}, "hidden_states", "no causal language model"),
        (
            {"max_position_embeddings": 100},
            "hidden_states",
            "has 100 positions, and --max-model-len asks for 256; fix: give at most 100",
        ),
    ],
)
def test_a_model_that_cannot_teach_so_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], kind: str, said: str
) -> None:
    folder = write_llama(tmp_path / "model")
    change_json(folder / "config.json", **changes)
    result = harness("serve-command", folder, "--kind", kind, "--max-model-len", 256)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_adapter_and_an_empty_folder_are_refused(models: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", models / "other")
    assert "is an adapter; fix: merge it" in harness("serve-command", tmp_path / "adapter").stderr
    (tmp_path / "empty").mkdir()
    assert "no config.json" in harness("serve-command", tmp_path / "empty").stderr


def test_check_passes_on_the_teacher_and_says_what_it_checked(server: PoolingServer, models: Path) -> None:
    result = harness(
        "check", server.url, "--head", models / "the teacher", "--dtype", "float32", "--against", models / "the teacher"
    )
    assert result.exit_code == 0, result.output
    rows = [line.split("  ") for line in result.stdout.splitlines()]
    assert rows[0][0] == "check"
    assert [row[0] for row in rows[1:]][-3:] == ["head", "local copy", "likely text"]


def test_check_exits_with_1_where_something_is_refused(server: PoolingServer, models: Path) -> None:
    result = harness("check", server.url, "--head", models / "the teacher", "--against", models / "other", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    refused = {check["name"]: check for check in report["checks"] if check["result"] == "refused"}
    assert set(refused) == {"head", "local copy"}
    assert refused["local copy"]["value"] > refused["local copy"]["limit"]
    server.tokenizer = sentencepiece()
    result = harness("check", server.url, "--head", models / "the teacher")
    assert result.exit_code == 1
    assert "vocabulary" in result.stdout
    assert "refused" in result.stdout


def test_check_exits_with_2_for_bad_input_and_with_1_without_a_server(server: PoolingServer, models: Path) -> None:
    for arguments, said in (
        ((server.url,), "--head is missing"),
        ((server.url, "--kind", "top_k"), "--tokenizer is missing"),
        ((server.url, "--head", "nowhere/at/all"), "nowhere"),
        (("teacher:8000", "--head", models / "other"), "is no address"),
    ):
        result = harness("check", *arguments)
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    server.down = True
    result = harness("check", server.url, "--model", "teacher", "--head", models / "other")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {server.url}: Server disconnected")
    assert result.stderr.endswith("; fix: start the server, or give the address of one that runs\n")


def test_check_says_of_a_copy_with_another_tokenizer_that_it_is_none(
    server: PoolingServer, models: Path, tmp_path: Path
) -> None:
    write_llama(tmp_path / "copy", tokenizer=sentencepiece())
    result = harness("check", server.url, "--head", models / "the teacher", "--against", tmp_path / "copy")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --against: {tmp_path / 'copy'} has another tokenizer than")


def test_check_says_of_an_unencrypted_server_that_no_secure_connection_was_made(
    server: PoolingServer, models: Path
) -> None:
    result = harness("check", server.url.replace("http:", "https:"), "--head", models / "the teacher")
    assert result.exit_code == 1
    assert ": no secure connection (" in result.stderr


def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(server: PoolingServer, models: Path) -> None:
    result = harness("check", server.url, "--head", models / "other", "--api-key-env", "sk-secret-1")
    assert result.exit_code == 2
    assert "is no name of an environment variable; fix: give its name, and not the key" in result.stderr
    assert "secret" not in result.output


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server, which was started by the printed line."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log.txt"
    line = harness("serve-command", models / "the teacher", "--cpu", "--dtype", "float32", "--port", port).stdout
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment |= ENVIRONMENT  # of this machine and not of the line: several servers share its cores
    with log.open("wb") as stream:
        process = subprocess.Popen(
            line, shell=True, stdout=stream, stderr=stream, env=environment, start_new_session=True, cwd=log.parent
        )
    url, limit = f"http://127.0.0.1:{port}", time.monotonic() + 600
    try:
        while True:
            waits = process.poll() is None and time.monotonic() < limit
            assert waits, log.read_text(errors="replace")[-3000:]
            try:
                if httpx2.get(f"{url}/health", timeout=5).is_success:
                    break
            except httpx2.RequestError:
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the shell's children too, of which one that starts ignores SIGTERM
        process.wait()


@pytest.mark.slow  # a server of vLLM
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_server_that_was_started_by_the_printed_line_passes(served: str, models: Path, dtype: str) -> None:
    folder = models / "the teacher"
    result = harness("check", served, "--head", folder, "--dtype", dtype, "--against", folder, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    passed = {check["name"]: check for check in report["checks"] if check["result"] == "passed"}
    assert set(passed) >= {
        "name",
        "vocabulary",
        "finite numbers",
        "hidden size",
        "raw states",
        "the same again",
        "local copy",
    }
    assert passed["local copy"]["value"] < (1e-5 if dtype == "float32" else 5e-3)
    assert report["versions"][served]


@pytest.mark.slow  # a server of vLLM
def test_a_head_that_is_not_the_servers_is_refused(served: str, models: Path) -> None:
    result = harness("check", served, "--head", models / "permuted", "--dtype", "float32")
    assert result.exit_code == 1
    assert "head and states are not of one model" in result.stdout
