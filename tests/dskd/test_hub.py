"""Models by name, with the real client of the hub and a hub on 127.0.0.1: commits, downloads, the cache alone, errors, code."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dskd import hub
from dskd.errors import InputError
from dskd.modeling.folders import base_of_adapter
from dskd.modeling.loading import load_model, load_tokenizer
from helpers.hub_server import HubServer
from helpers.tiny_models import write_gpt2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2."""
    return write_gpt2(tmp_path_factory.mktemp("models") / "gpt2", "a small text of a few words")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as served:
        served.point_client_here(monkeypatch)
        yield served


def _copy(folder: Path, to: Path, **config: object) -> Path:
    shutil.copytree(folder, to)
    if config:
        (to / "config.json").write_text(json.dumps(json.loads((to / "config.json").read_text()) | config))
    return to


def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# --- names ---


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen/Qwen2.5-0.5B", ("Qwen/Qwen2.5-0.5B", "main")),
        ("org/name@v1.0", ("org/name", "v1.0")),
        ("org/name@refs/pr/4", ("org/name", "refs/pr/4")),
        ("org/name@" + "a" * 40, ("org/name", "a" * 40)),
        ("/models/gpt2", None),
        ("./models/gpt2", None),
        ("../gpt2", None),
        ("a/b/c", None),
        ("gpt2", None),
        ("org/", None),
        ("org/name@", None),
        ("${MODELS}/gpt2", None),
        ("~/gpt2", None),
    ],
)
def test_what_is_a_name_on_the_hub(text: str, name: tuple[str, str] | None) -> None:
    found = hub.parse(text)
    assert (None if found is None else (found.repo, found.revision)) == name


def test_a_folder_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.parse("org/name") is not None
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert hub.parse("org/name") is None
    assert hub.model_folder("org/name") == Path("org/name")


# --- commits and files ---


def test_a_branch_that_moves_has_another_commit_and_the_old_one_stays_readable(
    server: HubServer, folder: Path, tmp_path: Path
) -> None:
    first = server.add_model("org/name", folder)
    old = hub.snapshot("org/name", hub.resolve("org/name"))
    second = server.add_model("org/name", _copy(folder, tmp_path / "newer", n_positions=64))
    assert hub.resolve("org/name") == second != first
    assert hub.newest("org/name") == second
    new = hub.snapshot("org/name", second)
    assert (old.name, new.name) == (first, second)
    assert [json.loads((each / "config.json").read_text())["n_positions"] for each in (old, new)] == [512, 64]
    assert hub.snapshot_of(new) == hub.HubName("org/name", second)


def test_planning_downloads_settings_alone_and_loading_the_weights_with_sizes_told_first(
    server: HubServer, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = _copy(folder, tmp_path / "whole")
    (whole / "pytorch_model.bin").write_bytes(b"a pickle")
    (whole / "additional_chat_templates").mkdir()
    (whole / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    (whole / "onnx").mkdir()
    (whole / "onnx" / "config.json").write_text("{}")
    (whole / "modeling_x.py").write_text("raise SystemExit")
    commit = server.add_model("org/name", whole)
    with caplog.at_level(logging.INFO):
        place = hub.settings("org/name", commit)
        files = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
        assert files >= {"config.json", "tokenizer.json", "additional_chat_templates/tool.jinja"}
        assert not files & {"model.safetensors", "pytorch_model.bin", "onnx/config.json", "modeling_x.py"}
        caplog.clear()
        assert hub.snapshot("org/name", commit) == place
    size = (folder / "model.safetensors").stat().st_size
    told = [record.getMessage() for record in caplog.records if record.name.startswith("dskd")]
    assert told == [f"downloading 1 file of org/name ({size / 1000:.0f} kB) into {server.cache}"]
    assert (place / "model.safetensors").is_file()
    assert not (place / "pytorch_model.bin").exists()
    before = len(server.requests)
    assert hub.snapshot("org/name", commit) == place
    assert len(server.requests) == before, "what is in the cache asks nobody"
    assert load_model(place).config.model_type == "gpt2"
    assert load_tokenizer(place).eos_token is not None


@pytest.mark.parametrize("form", ["files", "list"])
def test_several_named_chat_templates_come_along_and_the_default_is_used(
    server: HubServer, folder: Path, tmp_path: Path, form: str
) -> None:
    templates = {"default": "{% for m in messages %}{{ m['content'] }}{% endfor %}", "tool_use": "{{ tools }}"}
    made = _copy(folder, tmp_path / "named")
    if form == "files":
        tokenizer = load_tokenizer(made)
        tokenizer.chat_template = templates
        tokenizer.save_pretrained(made)
        assert (made / "additional_chat_templates" / "tool_use.jinja").is_file()
    else:
        settings = json.loads((made / "tokenizer_config.json").read_text())
        settings["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
        (made / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(hub.settings("org/named", server.add_model("org/named", made)))
    assert tokenizer.chat_template == templates
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"


def test_sharded_weights_are_those_of_the_index(server: HubServer, folder: Path, tmp_path: Path) -> None:
    sharded = _copy(folder, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    load_model(folder).save_pretrained(sharded, max_shard_size="20KB")
    shards = {path.name for path in sharded.glob("*.safetensors")}
    assert len(shards) > 1
    (sharded / "consolidated.safetensors").write_bytes(b"the same again in one file")
    place = hub.model_folder(f"org/sharded@{server.add_model('org/sharded', sharded)}")
    assert {path.name for path in place.glob("*.safetensors")} == shards
    assert load_model(place).num_parameters() == load_model(folder).num_parameters()
    # An index that names a shard which is not there.
    (sharded / min(shards)).unlink()
    commit = server.add_model("org/sharded", sharded)
    with pytest.raises(InputError, match=rf"^org/sharded@{commit}: model.safetensors.index.json names {min(shards)}, "):
        hub.settings("org/sharded", commit)


def test_a_pickle_alone_is_refused_before_anything_else(server: HubServer, folder: Path, tmp_path: Path) -> None:
    pickled = _copy(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    commit = server.add_model("org/pickled", pickled)
    for read in (hub.settings, hub.snapshot):
        with pytest.raises(
            InputError,
            match=r"pytorch_model\.bin alone, a pickle.*`hf download org/pickled --revision .* --local-dir DIR`",
        ):
            read("org/pickled", commit)
    (pickled / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors and no model\.safetensors\.index\.json"):
        hub.settings("org/pickled", server.add_model("org/pickled", pickled))


def test_a_data_set_is_had_by_patterns(server: HubServer, tmp_path: Path) -> None:
    rows = tmp_path / "rows" / "data"
    rows.mkdir(parents=True)
    for name in ("train[1].jsonl", "test.jsonl"):
        (rows / name).write_text('{"prompt": "a", "output": "b"}\n')
    commit = server.add_dataset("org/rows", rows.parent)
    assert hub.resolve("org/rows", kind="dataset") == commit
    place = hub.snapshot("org/rows", commit, kind="dataset", files=["data/train*"])
    assert [path.name for path in (place / "data").iterdir()] == ["train[1].jsonl"]
    assert len([*hub.snapshot("org/rows", commit, kind="dataset").rglob("*.jsonl")]) == 2


def test_a_commit_that_is_pinned_is_used_by_this_process_and_its_children(
    server: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSKD_HUB_COMMITS", "")
    first = server.add_model("org/name", folder)
    server.add_model("org/name", _copy(folder, tmp_path / "newer", n_positions=64))
    hub.pin("org/name", "main", first)
    assert hub.resolve("org/name") == first
    code = "from dskd import hub; print(hub.resolve('org/name'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first


# --- the cache alone ---


def test_offline_the_cache_alone_answers(
    server: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_model("org/name", folder)
    place = hub.model_folder("org/name")
    server.add_model("org/name", _copy(folder, tmp_path / "newer", n_positions=64))
    _offline(monkeypatch)
    asked = len(server.requests)
    assert hub.model_folder("org/name") == place
    with pytest.raises(hub.HubUnreachable, match="HF_HUB_OFFLINE is set"):
        hub.newest("org/name")
    with pytest.raises(
        hub.HubUnreachable, match=r"^org/other@main: is not in the hub's cache .* HF_HUB_OFFLINE is set; fix: "
    ):
        hub.model_folder("org/other")
    with pytest.raises(hub.HubUnreachable, match=r"^org/name@v1: is not in the hub's cache"):
        hub.model_folder("org/name@v1")
    assert len(server.requests) == asked


@pytest.mark.slow  # waits for what does not answer
def test_without_network_the_cache_answers_and_what_it_lacks_is_one_line(
    server: HubServer, folder: Path, tmp_path: Path
) -> None:
    server.add_model("org/name", folder)
    server.add_model("org/half", folder)
    place = hub.model_folder("org/name")
    hub.settings("org/half", hub.resolve("org/half"))
    server.stop()
    assert hub.model_folder("org/name") == place
    with pytest.raises(
        hub.HubUnreachable, match=rf"^org/other@main: .*{server.url} cannot be reached \(.*\); fix: "
    ) as raised:
        hub.model_folder("org/other")
    assert "\n" not in str(raised.value)
    with pytest.raises(hub.HubUnreachable, match=r"^--student: org/half@[0-9a-f]{40}: .* cannot be reached"):
        hub.model_folder("org/half", where="--student")


# --- errors ---


def test_missing_gated_and_no_such_revision_are_a_line_each(server: HubServer, folder: Path) -> None:
    server.add_model("org/name", folder)
    commit = server.add_model("org/gated", folder, gated=True)
    lines = {
        "org/none": rf"--teacher: org/none@main: no model of this name on {server.url}, or a private one; fix: .*hf auth login",
        "org/gated": rf"--teacher: org/gated@{commit}: this model is gated: .* ask on {server.url}/org/gated, .*`hf auth login`",
        "org/name@nightly": r"--teacher: org/name@nightly: this model has no such revision; fix: ",
        "org/name@" + "0" * 40: r"--teacher: org/name@0{40}: this model has no such revision; fix: ",
    }
    for name, line in lines.items():
        with pytest.raises(InputError, match=f"^{line}") as raised:
            hub.model_folder(name, where="--teacher")
        assert "\n" not in str(raised.value)


def test_a_token_opens_a_gated_model(server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_model("org/gated", folder, gated=True)
    server.model("org/gated").readers.add("hf_reader")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert (hub.model_folder("org/gated") / "model.safetensors").is_file()


def test_a_download_that_breaks_off_is_one_line_and_goes_on_with_the_next_command(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client tries again, a second apart
    commit = server.add_model("org/name", folder)
    server.cut_off("org/name", "model.safetensors", 10_000)
    with pytest.raises(
        InputError, match=rf"^org/name@{commit}: its download broke off \(.*\); fix: run the same command"
    ) as broken:
        hub.model_folder("org/name")
    assert not isinstance(broken.value, hub.HubUnreachable)
    place = hub.snapshot_folder("org/name", commit)
    assert not (place / "model.safetensors").exists(), "half a file never counts"
    server.model("org/name").cuts.clear()
    server.requests.clear()
    assert load_model(hub.model_folder("org/name")) is not None
    assert not any(path.endswith("config.json") for _, path in server.requests), "what has come stays"


def test_a_disk_that_is_too_small_is_said_before_the_download(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_model("org/name", folder)
    free = shutil.disk_usage(folder)._replace(free=20_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(InputError, match=r"^org/name@[0-9a-f]{40}: needs .* and .* has 20\.0 kB free; fix: .* HF_HOME"):
        hub.model_folder("org/name")
    assert not any("model.safetensors" in path for _, path in server.requests)


def test_a_disk_that_fills_up_is_one_line(server: HubServer, folder: Path) -> None:
    """With a limit on the size of files, which the system reports as it does a full disk."""
    server.add_model("org/name", folder)
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from dskd import hub\n"
        "hub.settings('org/name', hub.resolve('org/name'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: hub.model_folder('org/name')\n"
        "except hub.download.InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.match(r"^org/name@[0-9a-f]{40}: the disk is full \(.*\); fix: .*HF_HOME", done.stdout), done.stderr


# --- adapters ---


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    """An adapter of the tiny model, whose base is a name on the hub."""
    from peft import LoraConfig, get_peft_model

    made = tmp_path / "adapter"
    model = get_peft_model(load_model(folder), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.save_pretrained(made)
    config = json.loads((made / "adapter_config.json").read_text())
    (made / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "org/base"}))
    load_tokenizer(folder).save_pretrained(made)
    return made


def test_an_adapter_finds_its_base_on_the_hub(server: HubServer, folder: Path, adapter: Path) -> None:
    server.add_model("org/base", folder)
    server.add_model("org/adapter", adapter)
    for place in (adapter, hub.model_folder("org/adapter")):
        assert load_model(place).num_parameters() == load_model(folder).num_parameters()


def test_an_adapters_base_that_cannot_be_had_is_said_with_the_adapter(server: HubServer, adapter: Path) -> None:
    with pytest.raises(InputError, match=r"^--student: org/base@main: no model of this name"):
        hub.model_folder(adapter, where="--student")
    with pytest.raises(InputError, match=r"adapter_config\.json: its base model org/base@main: no model of this name"):
        base_of_adapter(adapter)


# --- code that comes with a model ---

CODE = """
from pathlib import Path
from transformers import GPT2Config, GPT2LMHeadModel
Path(__file__).with_name("ran").touch()
class OwnConfig(GPT2Config):
    model_type = "own-kind"
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
"""


@pytest.fixture
def own_kind(folder: Path, tmp_path: Path) -> Path:
    """A model of a kind that transformers does not know, with its code."""
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    made = _copy(folder, tmp_path / "own", model_type="own-kind", auto_map=auto_map, architectures=["OwnModel"])
    (made / "own.py").write_text(CODE)
    return made


def test_code_of_a_model_runs_only_where_it_was_asked_for_by_name_and_commit(
    server: HubServer, own_kind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    commit = server.add_model("org/own", own_kind)
    place = hub.model_folder("org/own")
    assert not (place / "own.py").exists(), "code that may not run is not even downloaded"
    for trusted in ("", "org/own@main", f"org/other@{commit}", "org/own@" + "0" * 40):
        monkeypatch.setenv("DSKD_TRUST_REMOTE_CODE", trusted)
        with pytest.raises(
            InputError,
            match=rf"loading it would run own\.py from it; fix: .*set DSKD_TRUST_REMOTE_CODE=org/own@{commit},",
        ):
            load_model(place)
    monkeypatch.setenv("DSKD_TRUST_REMOTE_CODE", f"a/b@{'0' * 40}, org/own@{commit}")
    trusted_place = hub.model_folder("org/own")
    assert hub.trusts_code(trusted_place)
    assert type(load_model(trusted_place)).__name__ == "OwnModel"
    # A copy of it with the same code is trusted, one with other code is not.
    copied = tmp_path / "copied"
    shutil.copytree(trusted_place, copied)
    assert hub.trusts_code(copied)
    (copied / "own.py").write_text(CODE + "\n# changed")
    assert not hub.trusts_code(copied)
    with pytest.raises(InputError, match=rf"set DSKD_TRUST_REMOTE_CODE={copied}"):
        load_model(copied)


def test_code_of_another_repository_never_runs(own_kind: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((own_kind / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "other/repo--own.OwnModel"}
    (own_kind / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DSKD_TRUST_REMOTE_CODE", str(own_kind))
    with pytest.raises(InputError, match="would run code of another repository, other/repo"):
        hub.refuse_remote_code(own_kind)


def test_a_kind_that_transformers_knows_needs_no_code(folder: Path, tmp_path: Path) -> None:
    known = _copy(folder, tmp_path / "known", auto_map={"AutoModelForCausalLM": "own.OwnModel"})
    (known / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert type(load_model(known)).__name__ == "GPT2LMHeadModel"
    assert not (tmp_path / "ran").exists()
    assert os.environ.get("DSKD_TRUST_REMOTE_CODE") is None
