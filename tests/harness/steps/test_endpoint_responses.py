"""A teacher's responses from an endpoint as a step: the same product as those of an engine, kept reply by reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dskd.data.examples import load_examples
from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Template, set_template
from harness.costs.token_price import TokenPrice
from harness.runs.job_context import JobContext, ProgressChannel
from harness.steps.data import FileExamples, PreparedData
from harness.steps.endpoint_responses import REPLIES, EndpointResponses, TeacherEndpoint
from harness.steps.origins import data_origin
from harness.steps.tokenizers import TokenizerFiles
from helpers.openai_server import OpenAIServer, status
from helpers.tiny_tokenizers import byte_level

pytest.importorskip("openai", reason="the extra endpoints is not installed")

SECRET = "sk-test-0123456789abcdef"
CHAT_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"


def capitals(prompt: Any) -> str | Mapping[str, Any]:
    """A teacher that answers with capitals; '…' in a prompt has no end, 'nothing' no answer."""
    if "…" in str(prompt):
        return {"content": "HALF", "finish_reason": "length"}
    return "" if prompt == "nothing" else str(prompt).upper()


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def servers() -> Iterator[list[OpenAIServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(OpenAIServer(capitals)) for _ in range(2)]


@pytest.fixture
def server(servers: list[OpenAIServer]) -> OpenAIServer:
    return servers[0]


@pytest.fixture
def step_of(tmp_path: Path, server: OpenAIServer) -> Callable[..., EndpointResponses]:
    """The step for rows; settings of the endpoint are in `teacher`."""

    def make(rows: Sequence[Any], teacher: Mapping[str, Any] | None = None, **settings: Any) -> EndpointResponses:
        path = tmp_path / "examples.jsonl"
        given = [{"prompt": row, "output": "theirs"} if isinstance(row, str) else row for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
        own: dict[str, Any] = {"name": "big", "model": "m", "addresses": (server.url,), "retries": 1}
        steps: dict[str, Any] = {"limit": None, "max_new_tokens": 9, "temperature": 0.0, "seed": 5}
        examples = FileExamples(name="set", file=path, sha256="")
        return EndpointResponses(
            examples=examples, teacher=TeacherEndpoint(**own | dict(teacher or {})), **steps | settings
        )

    return make


def run(step: EndpointResponses, tmp_path: Path) -> JobContext:
    job = JobContext(tmp_path / "run", step.folder, step.outputs, ProgressChannel())
    job.store.output(step.folder).begin(step.kind, step.title, step.fingerprint)
    step.run(job)
    return job


def written(job: JobContext) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.folder / "answers.jsonl").read_text().splitlines()]


def report_of(job: JobContext) -> dict[str, Any]:
    manifest = job.store.output(job.folder.relative_to(job.root).as_posix()).manifest
    assert manifest is not None
    return manifest.report


StepOf = Callable[..., EndpointResponses]


def test_answers_take_the_place_of_the_data_s_and_what_was_left_out_is_counted(step_of: StepOf, tmp_path: Path) -> None:
    job = run(step_of(["one", "two…", "nothing", "é"]), tmp_path)
    assert written(job) == [{"prompt": "one", "output": "ONE"}, {"prompt": "é", "output": "É"}]
    report = report_of(job)
    counts = ("prompts", "kept", "without_end", "empty", "refused", "unreadable", "prompt_too_long")
    assert [report[name] for name in counts] == [4, 2, 1, 1, 0, 0, 0]
    assert (report["models"], report["finish_reasons"]) == ({"m": 4}, {"stop": 3, "length": 1})
    assert (report["usage"]["requests"], report["generated_tokens"], report["cost"]["tokens"]) == (4, 28, 28)
    assert "price_per_million" not in report["usage"]


def test_samples_are_examples_and_the_price_is_in_the_report(
    step_of: StepOf, server: OpenAIServer, tmp_path: Path
) -> None:
    price = TokenPrice(prompt=1.0, completion=10.0)
    job = run(step_of(["abcdefgh"], samples=3, temperature=0.7, price=price), tmp_path)
    assert written(job) == [{"prompt": "abcdefgh", "output": "ABCDEFGH"}] * 3
    assert len({request["seed"] for request in server.requests}) == 3
    usage = report_of(job)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 21)
    assert usage["cost"] == pytest.approx((6 * 1.0 + 21 * 10.0) / 1e6)


def test_samples_of_one_request_pay_the_prompt_once(step_of: StepOf, server: OpenAIServer, tmp_path: Path) -> None:
    server.script = lambda prompt: ["A", {"content": "B", "finish_reason": "length"}, "C"]
    job = run(step_of(["abcdefgh"], samples=3, together=True, temperature=0.7), tmp_path)
    assert [row["output"] for row in written(job)] == ["A", "C"]
    report = report_of(job)
    assert (len(server.requests), report["kept"], report["without_end"], report["usage"]["prompt_tokens"]) == (
        1,
        2,
        1,
        2,
    )


def test_a_server_that_ignores_n_is_one_line(step_of: StepOf, server: OpenAIServer, tmp_path: Path) -> None:
    server.script = lambda prompt: ["A"]
    with pytest.raises(InputError, match=r"gives 1 of 3 responses to a request with n; fix: ask for each"):
        run(step_of(["a"], samples=3, together=True, temperature=0.7), tmp_path)


def test_a_job_that_failed_asks_only_for_what_is_missing(step_of: StepOf, server: OpenAIServer, tmp_path: Path) -> None:
    step = step_of(["a", "b", "c", "d"], {"parallel": 1, "retries": 0})
    server.faults = [lambda handler: handler.complete()] * 2 + [status(500, "gone")]
    with pytest.raises(InputError, match=r"^teacher big at \S+: fails with status 500 \(gone\); fix: "):
        run(step, tmp_path)
    job = run(step, tmp_path)
    assert server.prompts == ["a", "b", "c", "c", "d"]
    assert [row["output"] for row in written(job)] == ["A", "B", "C", "D"]
    assert len((job.folder / REPLIES).read_text().splitlines()) == 4
    before = len(server.requests)
    assert (run(step, tmp_path).folder, len(server.requests)) == (job.folder, before + 4), "a finished job begins anew"


def test_replicas_are_asked_in_turn(step_of: StepOf, servers: list[OpenAIServer], tmp_path: Path) -> None:
    addresses = tuple(server.url for server in servers)
    job = run(step_of(["a", "b", "c"], {"addresses": addresses}, samples=2, temperature=1.0), tmp_path)
    assert [sorted(server.prompts) for server in servers] == [["a", "a", "c", "c"], ["b", "b"]]
    assert [row["output"] for row in written(job)] == ["A", "A", "B", "B", "C", "C"]


def test_prompts_that_the_server_does_not_take_are_left_out(
    step_of: StepOf, server: OpenAIServer, tmp_path: Path
) -> None:
    too_long = status(400, "This model's maximum context length is 10 tokens")
    server.faults = [lambda handler: handler.complete()] * 2 + [too_long]
    job = run(step_of(["a", "b", "c"], {"parallel": 1}, samples=2, temperature=1.0), tmp_path)
    assert (report_of(job)["prompt_too_long"], report_of(job)["kept"]) == (2, 4)
    assert server.prompts == ["a", "a", "b", "c", "c"], "the second sample of such a prompt is not asked for"


def test_where_no_prompt_is_taken_the_server_s_reason_is_told(
    step_of: StepOf, server: OpenAIServer, tmp_path: Path
) -> None:
    server.broken = status(400, "max_tokens exceeds the maximum of 4")
    with pytest.raises(
        InputError, match=r"cannot take prompt 1 \(max_tokens exceeds the maximum of 4\); fix: lower max_new_tokens, "
    ):
        run(step_of(["a", "b"]), tmp_path)


def test_a_teacher_without_any_usable_response_is_an_error(step_of: StepOf, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"'m' gave no response that can be learned from \(2 without end\); fix: raise max"
    ):
        run(step_of(["a…", "b…"]), tmp_path)


def test_conversations_are_asked_as_messages_and_learned_in_their_last_turn(
    step_of: StepOf, server: OpenAIServer, tmp_path: Path
) -> None:
    talk = [
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "another?"},
        {"role": "assistant", "content": "theirs"},
    ]
    server.script = lambda prompt: {"content": "Green.", "reasoning_content": "Grass."}
    template = Template(kind="chat", system="Be brief.", arguments={"enable_thinking": True})
    job = run(step_of([{"messages": talk}], {"template": template}), tmp_path)
    (request,) = server.requests
    assert [message["content"] for message in request["messages"]] == [
        "Be brief.",
        "Name a colour.",
        "Blue.",
        "another?",
    ]
    assert request["chat_template_kwargs"] == {"enable_thinking": True}
    (made,) = load_examples(job.folder / "answers.jsonl", instructions=True)
    assert [message.content for message in made.messages] == ["Name a colour.", "Blue.", "another?", "Green."]  # type: ignore[union-attr]
    assert made.messages[-1].reasoning == "Grass."  # type: ignore[union-attr]


def test_a_completions_api_continues_the_ids_of_a_local_teacher(
    step_of: StepOf, server: OpenAIServer, tmp_path: Path
) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT_TEMPLATE
    set_template(tokenizer, Template(kind="chat"))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    server.script = lambda ids: tokenizer.decode(ids).upper()
    teacher = {"api": "completions", "tokenizer": TokenizerFiles(folder=tmp_path / "tokenizer", files={})}
    job = run(step_of([{"instruction": "Add.", "output": "theirs"}], teacher), tmp_path)
    assert written(job) == [{"instruction": "Add.", "input": "", "output": "USER: ADD.<|END|>ASSISTANT: "}]


def test_with_a_tokenizer_here_a_chat_api_is_asked_what_its_template_takes(
    step_of: StepOf, server: OpenAIServer, tmp_path: Path
) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "{{ m.role }}", "{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}{{ m.role }}"
    )
    set_template(tokenizer, Template(kind="chat", system="Be brief."))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    asked = {"role": "user", "content": "why?"}
    answer = {"role": "assistant", "content": "theirs"}
    talks = [[asked, answer], [asked, {"role": "tool", "content": "so"}, answer]]
    teacher = {"tokenizer": TokenizerFiles(folder=tmp_path / "tokenizer", files={})}
    job = run(step_of([{"messages": talk} for talk in talks], teacher), tmp_path)
    assert (report_of(job)["prompts"], report_of(job)["not_asked"], report_of(job)["kept"]) == (1, 1, 1)
    assert server.requests[0]["messages"] == [{"role": "system", "content": "Be brief."}, asked]


def test_what_is_wrong_with_settings_is_told_before_a_run(
    step_of: StepOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert step_of(["a"]).preflight(tmp_path) == ()
    with pytest.raises(InputError, match=r"^address of models\.big: is no address; fix: "):
        step_of(["a"], {"addresses": ("127.0.0.1:8000",)}).preflight(tmp_path)
    with pytest.raises(InputError, match=r"^parameters n: is set by the harness itself"):
        step_of(["a"], parameters={"n": 2}).preflight(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    with pytest.raises(InputError, match=r"^OPENAI_API_KEY: is no API key"):
        step_of(["a"]).preflight(tmp_path)


def test_a_student_s_data_can_be_made_of_them(step_of: StepOf, tmp_path: Path) -> None:
    byte_level().save_pretrained(tmp_path / "student")
    responses = step_of(["the river", "the garden"])
    run(responses, tmp_path)
    student = TokenizerFiles(folder=tmp_path / "student", files={})
    data = PreparedData(examples=responses, student_tokenizer=student, max_length=64)
    job = JobContext(tmp_path / "run", data.folder, data.outputs, ProgressChannel())
    job.store.output(data.folder).begin(data.kind, data.title, data.fingerprint)
    data.run(job)
    assert report_of(job)["kept"] == 2
    assert data.needs == (responses,)
    sampled = step_of(["the river", "the garden"], samples=3, temperature=1.0)
    assert (data.lengths.examples, data.model_copy(update={"examples": sampled}).lengths.examples) == (2, 6)
    assert data_origin(responses).made == "responses of big"


def test_the_address_and_the_key_are_no_part_of_the_identity_and_of_no_file(
    step_of: StepOf, server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    step = step_of(["a"], {"api_key_env": "MY_KEY"})
    assert step.fingerprint.hash == step_of(["a"], {"addresses": ("https://elsewhere/v1",)}).fingerprint.hash
    server.script = lambda prompt: {"content": f"The key is {SECRET}."}
    job = run(step, tmp_path)
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    files = [path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [text for text in files if SECRET in text] == []
    assert [text for text in files if server.url in text] == []
    assert written(job)[0]["output"] == "The key is [API key]."


def test_another_model_or_other_settings_are_other_responses(step_of: StepOf) -> None:
    changed = [
        step_of(["a"]),
        step_of(["a"], {"model": "n"}),
        step_of(["a"], {"api": "completions"}),
        step_of(["a"], {"template": Template(kind="chat", system="Be brief.")}),
        step_of(["a"], temperature=0.5),
        step_of(["a"], samples=2),
        step_of(["a"], parameters={"top_p": 0.5}),
        step_of(["a"], seed=6),
        step_of(["a"], max_new_tokens=10),
        step_of(["a"], limit=1),
    ]
    assert len({step.fingerprint.hash for step in changed}) == len(changed)


def test_replies_to_other_requests_are_never_used(step_of: StepOf, server: OpenAIServer, tmp_path: Path) -> None:
    step = step_of(["a", "b"], {"parallel": 1, "retries": 0})
    server.faults = [lambda handler: handler.complete(), status(500)]
    with pytest.raises(InputError):
        run(step, tmp_path)
    step_of(["changed", "b"])
    with pytest.raises(InputError, match=rf"{REPLIES}:1: its reply to prompt 1 is to another request.*; fix: "):
        run(step, tmp_path)
