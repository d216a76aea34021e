"""`harness init`: what it writes passes `harness plan` as it is, and says what fits two models and a training set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from dskd.modeling.loading import load_tokenizer
from harness import tasks
from harness.cli import main
from harness.steps.create_model import new_model
from helpers.hub_server import HubServer
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece

CONFIG = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
}
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`teacher` and `same` (one vocabulary), `cross` (another); each again as `NAME-chat`, with a chat template."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"teacher": byte_level(), "same": byte_level(), "cross": sentencepiece()}
    for seed, (name, tokenizer) in enumerate(kinds.items()):
        for chat in ("", "-chat"):
            tokenizer.chat_template = CHAT if chat else None
            tokenizer.save_pretrained(folder / "tokenizers" / (name + chat))
            new_model(CONFIG, folder / "tokenizers" / (name + chat), seed, folder / (name + chat))
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with links to the models, and no data of tasks."""
    for folder in models.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return tmp_path


def write(name: str, rows: list[Any]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


PROMPTS = [{"prompt": line[:8], "output": line[8:24]} for line in LINES]
INSTRUCTIONS = [{"instruction": f"Say {k}", "output": f"It is {k}."} for k in range(9)]
CONVERSATIONS = [
    {"messages": [{"role": "user", "content": f"Say {k}"}, {"role": "assistant", "content": f"{k}."}]} for k in range(9)
]


def init(*options: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(main, ["init", *options], input=typed)


def drafted(teacher: str, student: str, data: str, *options: str, typed: str | None = None) -> dict[str, Any]:
    """The content of a drafted matrix, which `harness plan` takes as it is."""
    yes = [] if typed is not None else ["--yes"]
    done = init("--teacher", teacher, "--student", student, "--data", data, *yes, *options, typed=typed)
    assert done.exit_code == 0, done.output
    planned = CliRunner().invoke(main, ["plan", "--matrix", "matrix.yaml"])
    assert planned.exit_code == 0, planned.output
    return yaml.safe_load(Path("matrix.yaml").read_text(encoding="utf-8"))


def comments() -> str:
    lines = Path("matrix.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(" ".join(line.partition("#")[2].split()) for line in lines if "#" in line)


def refused(*options: str, typed: str | None = None) -> str:
    result = init(*options, typed=typed)
    assert result.exit_code == 2, result.output
    assert not Path("matrix.yaml").exists()
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def test_two_vocabularies_and_whole_prompts() -> None:
    matrix = drafted("teacher", "cross", write("train.jsonl", PROMPTS))
    assert matrix["data"] == {"examples": {"file": "train.jsonl"}}
    assert matrix["models"] == {"teacher": {"path": "teacher"}, "cross": {"path": "cross"}}
    pair = {"teacher": "teacher", "student": "cross", "methods": ["sft", "uld", "dskd-v2-eta"]}
    assert matrix["pairs"] == [pair]
    training = matrix["training"]
    assert (training["batch_size"], training["gradient_accumulation_steps"], training["max_length"]) == (32, 1, 64)
    assert matrix["seeds"] == [1, 2, 3]
    assert matrix["teacher_outputs"] == {"kind": "hidden_states"}
    said = comments()
    assert "Two vocabularies: " in said
    assert (
        "Methods that fit as well: alm, dskd-v1-cma, dskd-v1-cma-ga, gold, mined, multilevel-ot, prefix-kd, seqkd, simct, "
        "strict-kd, x-token." in said
    )
    assert "keeps 100.0% of 20 sampled examples" in said
    assert "Template: none, because the data holds whole prompts." in said


def test_one_vocabulary_and_chat_templates_of_both() -> None:
    matrix = drafted("teacher-chat", "same-chat", write("train.jsonl", INSTRUCTIONS))
    assert [model["template"] for model in matrix["models"].values()] == ["chat", "chat"]
    assert matrix["pairs"][0]["methods"] == ["sft", "kd", "dskd-v2"]
    said = comments()
    assert "One vocabulary: " in said
    on_policy = "g-opd, iw-opd, minillm, opd, opd-chunks, opd-control, opd-full, opd-student-top-k, opd-top-k"
    assert f"With rollouts and teacher_outputs live: {on_policy}." in said


def test_alpaca_where_one_has_no_chat_template() -> None:
    matrix = drafted("teacher-chat", "cross", write("train.jsonl", INSTRUCTIONS))
    assert [model["template"] for model in matrix["models"].values()] == ["alpaca", "alpaca"]
    assert "Template: alpaca, because cross has no chat template." in comments()


def test_a_chat_template_that_ends_no_turn_is_not_used(models: Path) -> None:
    shutil.copytree(models / "cross-chat", "endless")
    tokenizer = load_tokenizer(Path("endless"))
    tokenizer.chat_template = CHAT.replace("{{ eos_token }}", " ")
    tokenizer.save_pretrained("endless")
    matrix = drafted("teacher-chat", "endless", write("train.jsonl", INSTRUCTIONS))
    assert matrix["models"]["endless"]["template"] == "alpaca"
    assert "endless has a chat template that cannot be used: " in comments()


def test_a_base_model_and_an_instruct_model_of_one_vocabulary_end_alike_in_their_chat_template(models: Path) -> None:
    for name, end in (("base", "<|end|>"), ("instruct", "<|turn|>")):
        shutil.copytree(models / "teacher-chat", name)
        tokenizer = load_tokenizer(Path(name))
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
        tokenizer.chat_template = CHAT.replace("{{ eos_token }}", "<|turn|>")
        tokenizer.eos_token = end
        tokenizer.save_pretrained(name)
        new_model(CONFIG, Path(name), 0, Path(name))
    methods = ["sft", "kd", "dskd-v2"]
    assert drafted("instruct", "base", write("chat.jsonl", INSTRUCTIONS))["pairs"][0]["methods"] == methods
    Path("matrix.yaml").unlink()
    # Asked by whole prompts they end with two tokens, so that their vocabularies are not one.
    matrix = drafted("instruct", "base", write("train.jsonl", PROMPTS))
    assert matrix["pairs"][0]["methods"] == ["sft", "uld", "dskd-v2-eta"]


def test_conversations_need_chat_templates() -> None:
    data = write("train.jsonl", CONVERSATIONS)
    assert drafted("teacher-chat", "cross-chat", data)["models"]["cross-chat"]["template"] == "chat"
    Path("matrix.yaml").unlink()
    line = refused("--teacher", "teacher-chat", "--student", "cross", "--data", data, "--yes")
    assert line.startswith(
        "--data: holds conversations, which need a chat template in both models, but cross has no chat"
    )


def test_rows_of_no_known_shape_are_mapped_by_options_or_by_asking() -> None:
    data = write("train.jsonl", [{"q": f"Say {k}", "a": f"It is {k}."} for k in range(9)])
    assert "--data train.jsonl" in refused("--teacher", "teacher", "--student", "cross", "--data", data, "--yes")
    mapped = {"file": "train.jsonl", "instruction": "{q}", "output": "{a}"}
    given = ["--column", "instruction={q}", "--column", "output={a}"]
    assert drafted("teacher", "cross", data, *given)["data"]["examples"] == mapped
    Path("matrix.yaml").unlink()
    typed = "{q}\n{a}\n\n\n2\n"
    matrix = drafted("teacher", "cross", data, typed=typed)
    assert matrix["data"]["examples"] == mapped
    assert matrix["seeds"] == [1, 2]


def test_what_is_missing_is_asked_for_and_choices_are_offered(place: Path) -> None:
    write("train.jsonl", PROMPTS)
    done = init(typed="teacher\ncross\ntrain.jsonl\nkd, sft\nsft, alm\n\n1\n")
    assert done.exit_code == 0, done.output
    assert "Error: kd is not one of sft, uld, dskd-v2-eta, alm" in done.stderr
    matrix = yaml.safe_load(Path("matrix.yaml").read_text())
    assert (matrix["pairs"][0]["methods"], matrix["seeds"]) == (["sft", "alm"], [1])
    assert done.stdout.startswith("Matrix: matrix.yaml (3 cells, ")
    assert "Time: about " in done.stdout
    assert "Disk: " in done.stdout
    assert done.stdout.splitlines()[-1] == "Next: harness plan --matrix matrix.yaml; harness run --matrix matrix.yaml"


def test_without_anybody_to_ask_what_is_missing_is_named(place: Path) -> None:
    write("train.jsonl", PROMPTS)
    assert refused("--teacher", "teacher", "--yes").startswith(
        "--student: is missing; fix: give it, or leave out --yes"
    )
    assert refused(typed="teacher\n").startswith("--student: is missing, and there is nobody to ask")


def test_max_length_is_what_the_models_read_where_that_is_less() -> None:
    rows = [{"prompt": "a", "output": "The quick brown fox " * (1 + 30 * (k % 2))} for k in range(8)]
    matrix = drafted("teacher", "cross", write("train.jsonl", rows))
    assert matrix["training"]["max_length"] == 256
    said = comments()
    assert "keeps 50.0% of 8 sampled examples" in said
    assert "a model reads no more" in said
    long = write("long.jsonl", [{"prompt": "a", "output": "The quick brown fox " * 40}])
    Path("matrix.yaml").unlink()
    line = refused("--teacher", "teacher", "--student", "cross", "--data", long, "--yes")
    assert "and the models read 256 at most; fix: give shorter examples" in line


def test_rows_that_cannot_be_used_are_counted_and_mistakes_are_told() -> None:
    data = write("train.jsonl", [*PROMPTS, {"prompt": "a", "output": ""}])
    line = refused("--teacher", "teacher", "--student", "cross", "--data", data, "--yes")
    assert line == "--data train.jsonl:21: output is empty; fix: remove the line or give the response"
    asked = {"messages": [{"role": "user", "content": "Say it"}]}
    drafted("teacher-chat", "cross-chat", write("chat.jsonl", [*CONVERSATIONS, asked]))
    assert "9 examples that can be used. Left out: 1 " in comments()


def test_tasks_whose_data_is_here_and_how_they_ask(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    math500 = type(tasks.load("math500"))
    monkeypatch.setattr(math500, "data", replace(math500.data, sha256=None))  # any file of its form will do
    (place / "data" / "math500").mkdir(parents=True)
    row = {"problem": "What is 1 + 1?", "solution": "2", "answer": "2", "subject": "a", "level": 1, "unique_id": "1"}
    write(str(place / "data" / "math500" / "test.jsonl"), [row, {**row, "problem": "What is 2 + 2?", "unique_id": "2"}])
    monkeypatch.setenv("HARNESS_DATA", str(place / "data"))
    rows = [{"prompt": f"{line['prompt']}\n\nReply now:\n", "output": line["output"]} for line in PROMPTS]
    matrix = drafted("teacher", "cross", write("train.jsonl", rows))
    assert matrix["tasks"] == {"math500": {"other_prompts": True, "limit": 100}}
    text = Path("matrix.yaml").read_text()
    assert "\n  # humaneval: " in text  # of an installed package; it runs what a model writes
    assert "gsm8k" not in text
    Path("matrix.yaml").unlink()
    matrix = drafted("teacher-chat", "cross-chat", write("train.jsonl", INSTRUCTIONS))
    assert matrix["tasks"] == {"math500": {"limit": 100}}


def test_the_tasks_of_the_small_world_are_for_its_own_data(place: Path) -> None:
    from harness.smallworld.world import write_world

    write_world(place / "world")
    matrix = drafted("world/tokenizers/../../teacher", "cross", "world/train/student.jsonl")
    assert set(matrix["tasks"]) == {"small_instruct", "small_math"}
    Path("matrix.yaml").unlink()
    assert drafted("teacher", "cross", write("train.jsonl", PROMPTS))["tasks"] == {}


@pytest.mark.slow  # a whole plan over a hub on this machine
def test_names_on_the_hub(
    models: Path, place: Path, monkeypatch: pytest.MonkeyPatch, harness: Callable[..., CompletedProcess[str]]
) -> None:
    (place / "rows").mkdir()
    write(str(place / "rows" / "train.jsonl"), PROMPTS)
    given = ["--teacher", "org/teacher", "--student", "org/student@main", "--data", "org/rows:train", "--yes"]
    with HubServer(place / "served") as hub:
        hub.add_model("org/teacher", models / "teacher")
        hub.add_model("org/student", models / "cross")
        hub.add_dataset("org/rows", place / "rows")
        hub.point_client_here(monkeypatch)
        done = harness("init", *given, cwd=place)
        assert done.returncode == 0, done.stderr
        planned = harness("plan", "--matrix", "matrix.yaml", cwd=place)
        assert planned.returncode == 0, planned.stderr
        weights = [path for _, path in hub.requests if path.endswith(".safetensors")]
    matrix = yaml.safe_load((place / "matrix.yaml").read_text())
    assert [model["path"] for model in matrix["models"].values()] == ["org/teacher", "org/student@main"]
    assert matrix["data"]["examples"] == {"hub": "org/rows", "split": "train"}
    assert weights == []  # none are needed


@pytest.mark.parametrize("name", ["a b # c", "x: {y}", "[1]", "naïve café 東京 🦊", "'quoted\"", "- dash", "null", "~"])
def test_names_may_hold_what_yaml_takes_for_markup(name: str, models: Path) -> None:
    Path(name).symlink_to(models / "cross")
    data = write(f"{name}.jsonl", PROMPTS)
    matrix = drafted("teacher", name, data)
    assert [model["path"] for model in matrix["models"].values()] == ["teacher", name]
    assert matrix["data"]["examples"]["file"] == data


def test_two_models_of_one_name_are_told_apart_by_their_roles(models: Path) -> None:
    for place in ("a", "b"):
        Path(place).mkdir()
    Path("a/model").symlink_to(models / "teacher")
    Path("b/model").symlink_to(models / "cross")
    write("train.jsonl", PROMPTS)
    Path("c").mkdir()
    shutil.copytree(models / "teacher", "c/model")
    shutil.copytree(models / "cross", "d/model")
    assert set(drafted("c/model", "d/model", "train.jsonl")["models"]) == {"teacher", "student"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "none/such/model"], "--teacher none/such/model: "),
        (["--student", "empty"], "--student empty: empty: no config.json in the model folder"),
        (["--data", "none.jsonl"], "--data none.jsonl: no such file"),
        (["--data", "${HOME}.jsonl"], "holds ${, which a matrix takes for a variable"),
        (["--column", "prompts={q}"], "--column prompts: no such key; did you mean 'prompt'?"),
        (["--column", "prompt={q}"], "--column: these keys go together"),
        (["--output", "no/such"], None),
        (["--output", "train.jsonl"], "--output train.jsonl: exists; fix: name a new file, or remove it"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(options: list[str], message: str | None) -> None:
    Path("empty").mkdir()
    write("train.jsonl", PROMPTS)
    write("${HOME}.jsonl", PROMPTS)
    pairs = zip(options[::2], options[1::2], strict=True)
    given = {"--teacher": "teacher", "--student": "cross", "--data": "train.jsonl"} | dict(pairs)
    arguments = [word for pair in given.items() for word in pair]
    if message is None:  # a folder that is not there yet is made
        assert init(*arguments, "--yes").exit_code == 0
        assert Path("no/such").is_file()
        return
    assert message in refused(*arguments, "--yes")


def test_nothing_is_left_where_planning_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    from dskd.errors import InputError

    def refuse(*_: Any, **__: Any) -> None:
        raise InputError("matrix.yaml: no")

    monkeypatch.setattr("harness.cli.init.make_plan", refuse)
    assert (
        refused("--teacher", "teacher", "--student", "cross", "--data", write("t.jsonl", PROMPTS), "--yes")
        == "matrix.yaml: no"
    )
