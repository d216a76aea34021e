"""`harness teacher responses` as a user calls it, against an imitated OpenAI endpoint."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.processes import process_environment, python_module
from harness.cli import main
from harness.cli.teacher_responses import ANSWERS, REPLIES, REPORT, SETTINGS
from helpers.openai_server import OpenAIServer, cut, slow, status, text

pytest.importorskip("openai", reason="the extra endpoints is not installed")

SOON = {"retry-after-ms": "10"}
PROMPTS = [f"question {number}" for number in range(6)]
SECRET = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(str.upper) as serving:
        yield serving


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt, "output": "theirs"}) + "\n" for prompt in PROMPTS))
    return path


Respond = Callable[..., Any]


@pytest.fixture
def respond(server: OpenAIServer, data: Path, tmp_path: Path) -> Respond:
    """Calls the command on the same data and folder each time."""

    def call(*more: str | Path, url: str | None = None) -> Any:
        return CliRunner().invoke(main, words(url or server.url, data, tmp_path / "out", *more))

    return call


def words(url: str, data: Path, folder: Path, *more: str | Path) -> list[str]:
    given = ["--endpoint", url, "--model", "m", "--data", data, "--output", folder, *more]
    return ["teacher", "responses", *map(str, given)]


def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out" / ANSWERS).read_text().splitlines()]


def replies(tmp_path: Path) -> list[tuple[int, int]]:
    lines = (tmp_path / "out" / REPLIES).read_text().splitlines()
    return [(row["prompt"], row["sample"]) for row in map(json.loads, lines)]


def test_the_answers_are_a_training_set_beside_their_replies_and_report(respond: Respond, tmp_path: Path) -> None:
    result = respond("--price", "prompt=1", "--price", "completion=2")
    assert result.exit_code == 0, result.output
    assert rows(tmp_path) == [{"prompt": prompt, "output": prompt.upper()} for prompt in PROMPTS]
    lines = result.stdout.splitlines()
    assert lines[0].endswith("answers.jsonl: 6 responses to 6 prompts")
    assert re.fullmatch(
        r"cost: 6 requests \(0 retries\), 12 prompt tokens, 42 completion tokens, [\d.]+ s, 9.6e-05 by the price given",
        lines[1],
    )
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["usage"]["cost"] == pytest.approx(96e-6)
    assert {path.name for path in (tmp_path / "out").iterdir()} - {".lock"} == {ANSWERS, REPLIES, SETTINGS, REPORT}
    shown = CliRunner().invoke(main, ["data", "show", str(tmp_path / "out"), "--json"])
    assert json.loads(shown.stdout)["usable"] == 6, "the folder is a source of data"


def test_json_is_the_report(respond: Respond, server: OpenAIServer, tmp_path: Path) -> None:
    server.script = lambda prompt: {"content": "half", "finish_reason": "length" if prompt.endswith("0") else "stop"}
    result = respond("--samples", "2", "--temperature", "0.7", "--json")
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "out" / REPORT).read_text())
    assert (report["prompts"], report["samples"], report["kept"], report["without_end"]) == (6, 2, 10, 2)
    assert "left out: 2 without end" in respond("--samples", "2", "--temperature", "0.7").stdout


def test_the_same_command_again_asks_nothing(respond: Respond, server: OpenAIServer, tmp_path: Path) -> None:
    first = respond("--json")
    content = (tmp_path / "out" / REPLIES).read_bytes()
    second = respond("--json", url="http://127.0.0.1:9/v1")  # where no teacher is
    assert (second.exit_code, second.stdout) == (0, first.stdout)
    assert (tmp_path / "out" / REPLIES).read_bytes() == content
    assert len(server.requests) == 6


def test_more_prompts_and_more_samples_ask_only_what_is_new(
    respond: Respond, server: OpenAIServer, tmp_path: Path
) -> None:
    warm = ("--temperature", "0.7")
    assert respond("--limit", "2", *warm).exit_code == 0
    assert len(rows(tmp_path)) == len(server.requests) == 2
    assert respond("--samples", "2", *warm).exit_code == 0
    assert len(rows(tmp_path)) == len(server.requests) == 12
    assert len(set(replies(tmp_path))) == 12
    assert respond("--limit", "1", *warm).exit_code == 0
    assert (len(rows(tmp_path)), len(server.requests)) == (1, 12)


def test_a_killed_command_resumes_and_asks_only_what_is_missing(
    server: OpenAIServer, data: Path, tmp_path: Path, respond: Respond
) -> None:
    server.delay = 0.3
    more = ("--samples", "3", "--temperature", "0.7", "--parallel", "2")
    command = python_module("harness.cli", *words(server.url, data, tmp_path / "out", *more))
    with subprocess.Popen(command, env=process_environment()) as process:
        path = tmp_path / "out" / REPLIES
        while not path.is_file() or path.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    stored = path.read_bytes()
    path.write_bytes(stored + b'{"prompt": 0, "torn')
    server.delay, before, asked = 0.0, stored.count(b"\n"), len(server.requests)
    assert asked - before <= 2, "what was under way is lost, and nothing else"
    assert respond(*more).exit_code == 0
    assert len(server.requests) - asked == 18 - before
    assert path.read_bytes().startswith(stored)
    assert len(set(replies(tmp_path))) == len(replies(tmp_path)) == 18
    assert len(rows(tmp_path)) == 18


OTHER = {
    "model": ("--model", "another"),
    "temperature": ("--temperature", "1"),
    "max_new_tokens": ("--max-new-tokens", "5"),
    "api": ("--api", "completions"),
    "parameters.top_p": ("--parameter", "top_p=0.9"),
    "seed": ("--seed", "1"),
    "template.system": ("--system", "Be brief."),
}


def test_replies_of_other_settings_are_never_mixed(respond: Respond, server: OpenAIServer) -> None:
    assert respond().exit_code == 0
    for name, more in OTHER.items():
        result = respond(*more)
        assert result.exit_code == 2
        head = name.split(".")[0]
        assert re.fullmatch(rf"error: --output \S*: holds replies with {head}\S* .*; fix: .*\n", result.stderr), name
    assert len(server.requests) == 6


def test_replies_to_other_data_are_never_used(respond: Respond, data: Path) -> None:
    assert respond().exit_code == 0
    data.write_text(data.read_text().replace("question 0", "question 9"))
    assert re.search(rf"{REPLIES}:\d: its reply to prompt 1 is to another request", respond().stderr)


def test_a_folder_of_other_files_is_left_alone(respond: Respond, server: OpenAIServer, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = respond()
    assert (result.exit_code, server.requests) == (2, [])
    assert "holds other files" in result.stderr


# Faults that pass: the request is sent again.


def test_a_fault_that_passes_is_retried_and_counted(respond: Respond, server: OpenAIServer) -> None:
    wait = status(429, headers={"Retry-After": "0.7"})
    server.faults = [status(500, headers=SOON), wait, cut, status(503, headers=SOON)]
    start = time.monotonic()
    result = respond("--parallel", "1", "--json")
    assert result.exit_code == 0, result.output
    assert time.monotonic() - start > 0.7
    assert len(server.requests) == 10
    usage = json.loads(result.stdout)["usage"]
    assert (usage["requests"], usage["retries"]) == (6, 4)


# Faults that stay: one line that says what to do, and what was answered is kept.

STAYS = {
    "401": (status(401, "no"), "refuses the API key (no); fix: put the right one into OPENAI_API_KEY"),
    "404": (
        status(404, "no such model"),
        "has no model 'm', or no chat completions (no such model); fix: a --model that",
    ),
    "429": (status(429, "slow down", headers=SOON), "asks to wait (slow down); fix: wait, or lower --parallel"),
    "500": (status(500, headers=SOON), "fails with status 500"),
    "400": (status(400, "unknown parameter: seed"), "--parameter NAME=null leaves out"),
    "broken JSON": (text('{"choices": ['), "something else than a chat completion"),
    "another shape": (text('{"choices": [{"message": {"content": 5}}]}'), "something else than a chat completion"),
    "a page": (text("<html>hello</html>", "text/html"), "something else than a chat completion"),
    "cut": (cut, "cannot be reached"),
    "slow": (slow(3), "no reply within 1 s; fix: a longer --timeout"),
}


@pytest.mark.parametrize("name", STAYS)
def test_a_fault_that_stays_is_one_line_and_loses_nothing(
    respond: Respond, server: OpenAIServer, tmp_path: Path, name: str
) -> None:
    fault, said = STAYS[name]
    assert respond("--limit", "2").exit_code == 0
    server.broken = fault
    result = respond("--retries", "0", "--parallel", "2", "--timeout", "1" if name == "slow" else "60")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: teacher at {server.url}: ")
    assert said in result.stderr
    assert sorted(replies(tmp_path)) == [(0, 0), (1, 0)]
    server.broken = None
    assert respond().exit_code == 0
    assert len(set(replies(tmp_path))) == len(replies(tmp_path)) == 6


def test_a_server_that_is_not_there_is_one_line(respond: Respond) -> None:
    result = respond("--retries", "0", url="http://127.0.0.1:9/v1")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "cannot be reached" in result.stderr
    assert "the same command resumes" in result.stderr


def test_without_the_package_it_is_one_line(respond: Respond, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    assert respond().stderr == (
        "error: harness teacher responses: the package openai is not installed; fix: pip install 'dskd-harness[endpoints]'\n"
    )


# The API key.


def test_the_key_reaches_the_server_and_nothing_else(
    respond: Respond, server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", f"{SECRET}\n")
    server.script = lambda prompt: f"The key is {SECRET}."
    shown = ""
    for fault in (status(401, f"Incorrect API key provided: {SECRET}"), status(500, SECRET, headers=SOON), None):
        server.broken = fault
        result = respond("--api-key-env", "MY_KEY", "--retries", "1", "--json")
        shown += result.output + result.stderr
        assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.exit_code == 0
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {SECRET}"}
    stored = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert "[API key]" in shown
    assert "[API key]" in stored
    assert SECRET not in shown
    assert SECRET not in stored


# What can be asked.


def test_prompts_without_answers_are_enough(respond: Respond, data: Path, tmp_path: Path) -> None:
    talk = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "why?"}]}
    data.write_text("".join(json.dumps(row) + "\n" for row in ({"id": 1, "prompt": "say é"}, talk)))
    assert respond().exit_code == 0
    first, second = rows(tmp_path)
    assert first == {"prompt": "say é", "output": "SAY É"}
    assert [message["content"] for message in second["messages"]] == ["Be brief.", "why?", "WHY?"]


def test_a_completions_api_continues_texts(respond: Respond, server: OpenAIServer, tmp_path: Path) -> None:
    assert respond("--api", "completions", "--max-new-tokens", "5").exit_code == 0
    assert server.requests[0]["prompt"] in PROMPTS
    assert server.requests[0]["max_tokens"] == 5
    assert [row["output"] for row in rows(tmp_path)] == [prompt.upper() for prompt in PROMPTS]


def test_rows_that_cannot_be_used_are_left_out_and_told(respond: Respond, data: Path) -> None:
    data.write_text(data.read_text() + '{"prompt": "p", "output": "o", "images": ["a.png"]}\n')
    result = respond("--json")
    assert json.loads(result.stdout)["unusable_rows"] == {"has images": 1}
    assert result.stderr.splitlines()[-1].startswith("warning: rows that cannot be used, left out: 1 has images")


def test_a_server_that_names_several_models_is_told_of(respond: Respond, server: OpenAIServer) -> None:
    body = '{"model": "other", "choices": [{"finish_reason": "stop", "message": {"content": "x"}}]}'
    server.faults = [text(body)]
    assert "warning: the server named several models: m, other" in respond().stderr


WRONG = {
    "--samples": (("--samples", "2"), "samples: 2 at temperature 0 would be the same"),
    "--parameter": (("--parameter", "stream=true"), "--parameter stream: is set by the harness itself"),
    "--price": (("--price", "prompt=1"), "--price completion: Field required; fix: --price prompt=X"),
    "--tokenizer": (
        ("--tokenizer", "x"),
        "--tokenizer: a chat API has its own; fix: leave it out, or --api completions",
    ),
    "--template": (("--api", "completions", "--template", "chat"), "fix: give --tokenizer, or --api chat"),
    "--data": (("--data", "nowhere.jsonl"), "--data nowhere.jsonl: no such file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_option_is_one_line_before_anything_is_asked(
    respond: Respond, server: OpenAIServer, tmp_path: Path, name: str
) -> None:
    more, said = WRONG[name]
    result = respond(*more)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.stderr
    assert said in result.stderr
    assert (server.requests, (tmp_path / "out").exists()) == ([], False)


def test_an_address_that_is_none_is_one_line(respond: Respond) -> None:
    assert respond(url="127.0.0.1:8000").stderr.startswith("error: --endpoint: is no address; fix: ")
    assert SECRET not in respond(url=f"http://me:{SECRET}@a/v1").stderr
