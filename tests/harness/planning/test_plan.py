"""Planning: what is done, stale and why, missing or failed, and what each --overwrite makes of it. No job runs here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.planning.plan import Overwrite, Plan, PlannedJob, make_plan
from harness.runs.identity import Fingerprint
from harness.runs.store import Store
from harness.steps.teacher_cache import TeacherCache
from harness.steps.tokenizers import WorldTokenizer
from harness.steps.training import Train

Content = dict[str, Any]


@pytest.fixture
def plan_of(write_matrix: Callable[[Any], Path], tmp_path: Path) -> Callable[..., Plan]:
    def plan(content: Content, **options: Any) -> Plan:
        return make_plan(str(write_matrix(content)), output_dir=tmp_path / "run", **options)

    return plan


def pretend_done(plan: Plan) -> None:
    """Leave what the jobs would leave, without their work."""
    store = Store(plan.root)
    for job in plan.to_run:
        for output in job.step.outputs:
            folder = store.output(output.folder)
            folder.begin(job.kind, job.title, output.fingerprint)
            if output.product:
                (folder.path / output.product).mkdir()
            folder.finish(1.0)


def training(plan: Plan, cell: str) -> Train:
    step = plan.jobs[f"train:{cell}"].step
    assert isinstance(step, Train)
    return step


def trainings(jobs: Iterable[PlannedJob]) -> list[Train]:
    return [job.step for job in jobs if isinstance(job.step, Train)]


def caches(plan: Plan) -> list[TeacherCache]:
    return [job.step for job in plan.jobs.values() if isinstance(job.step, TeacherCache)]


def reasons(plan: Plan) -> dict[str, str]:
    return {job.title: job.reason for job in plan.jobs.values() if job.action in {"run", "blocked"}}


def test_planning_writes_nothing(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(tiny)
    assert plan.counts() == {"done": 0, "missing": 9, "stale": 0, "failed": 0}
    assert not plan.root.exists()


def test_a_job_comes_after_what_it_needs_and_shared_work_stands_once(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    plan = plan_of(tiny)
    order = list(plan.jobs)
    for key, job in plan.jobs.items():
        assert all(order.index(need) < order.index(key) for need in job.needs)
    titles = [job.title for job in plan.jobs.values()]
    assert len(titles) == len(set(titles))
    assert titles.count("model teacher") == titles.count("small world") == 1
    # SFT needs no teacher, but the same data as the others of its pair.
    sft, kd = (training(plan, f"teacher__same/{name}/seed1") for name in ("sft", "kd"))
    assert {need.kind for need in sft.needs} == {"data", "model"}
    assert sft.teacher is None
    assert sft.data is kd.data


def test_what_is_done_is_not_done_again_even_where_shared_artifacts_are_gone(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    pretend_done(plan_of(tiny))
    plan = plan_of(tiny)
    assert plan.to_run == []
    assert plan.counts()["done"] == 9
    shutil.rmtree(plan.root / "artifacts")
    assert plan_of(tiny).to_run == []


def test_a_changed_option_makes_stale_what_depends_on_it_and_says_so(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    pretend_done(plan_of(tiny))
    tiny["methods"] = {"kd": {"temperature": 3.5}}
    found = reasons(plan_of(tiny))
    assert found == {
        "train teacher__same/kd/seed1": "options.temperature: 2 -> 3.5",
        "evaluate teacher__same/kd/seed1": "model.options.temperature: 2 -> 3.5",
    }


def test_a_changed_teacher_reaches_its_students_but_not_sft(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    pretend_done(plan_of(tiny))
    tiny["models"]["teacher"]["training"][0]["steps"] = 5
    found = reasons(plan_of(tiny))
    assert set(found) == {
        "model teacher",
        "teacher cache of teacher on student",
        "train teacher__same/kd/seed1",
        "train teacher__cross/dskd-v2-eta/seed1",
        "evaluate teacher/teacher",
        "evaluate teacher__same/kd/seed1",
        "evaluate teacher__cross/dskd-v2-eta/seed1",
    }
    assert found["train teacher__same/kd/seed1"] == "teacher.training.0.options.steps: 2 -> 5"


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["training"].update(checkpoint_steps=7, logging_steps=3),
        lambda m: m["evaluation"].update(max_batch_size=3),
        lambda m: m["methods"].update(kd={"temperature": 2}) if "methods" in m else m.update(methods={"kd": {}}),
        lambda m: m.update(description="other words"),
        lambda m: m["seeds"].append(2),
    ],
    ids=["how often to save", "batch size of the engine", "a default spelled out", "a description", "one more seed"],
)
def test_what_cannot_change_an_output_makes_nothing_stale(
    tiny: Content, plan_of: Callable[..., Plan], change: Callable[[Content], Any]
) -> None:
    pretend_done(plan_of(tiny))
    change(tiny)
    assert plan_of(tiny).counts()["stale"] == 0


def test_a_renamed_model_is_built_once(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    tiny["models"]["same-again"] = tiny["models"]["same"]
    tiny["pairs"][0]["methods"] = ["sft"]
    tiny["pairs"].append({"teacher": "teacher", "student": "same-again", "methods": ["sft"]})
    plan = plan_of(tiny)
    assert len([job for job in plan.jobs.values() if job.kind == "model"]) == 3


def test_a_smaller_limit_makes_evaluations_stale_and_nothing_else(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    pretend_done(plan_of(tiny))
    plan = plan_of(tiny, limit=1)
    assert {job.kind for job in plan.to_run} == {"evaluate"}
    assert plan.to_run[0].reason == "limit: 2 -> 1"
    assert plan_of(tiny, limit=50).to_run == []


def test_a_model_whose_weights_are_gone_is_made_again_only_for_who_needs_it(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    pretend_done(plan_of(tiny))
    shutil.rmtree(plan_of(tiny).root / "cells/teacher__same/kd/seed1/train/model")
    assert plan_of(tiny).to_run == []
    found = reasons(plan_of(tiny, limit=1, only=["method=kd"]))
    assert found["train teacher__same/kd/seed1"] == "its model is gone"


@pytest.mark.parametrize(
    ("overwrite", "expected"),
    [
        ("never", {"missing"}),
        ("failed", {"missing", "failed"}),
        ("stale", {"missing", "failed", "stale"}),
        ("always", {"missing", "failed", "stale", "done"}),
    ],
)
def test_overwrite_chooses_what_is_made_again(
    tiny: Content, plan_of: Callable[..., Plan], overwrite: Overwrite, expected: set[str]
) -> None:
    tiny["seeds"] = [1, 2, 3, 4]
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["sft"]}]
    tiny["tasks"] = {}
    pretend_done(plan_of(tiny))
    store = Store(plan_of(tiny).root)
    folder = {seed: store.output(f"cells/teacher__same/sft/seed{seed}/train") for seed in tiny["seeds"]}
    shutil.rmtree(folder[1].path)
    failed = folder[2].manifest
    assert failed is not None
    folder[2].begin("train", "x", Fingerprint.of(failed.identity.parts), fresh=True)
    folder[2].fail(1.0, "RuntimeError: broke")
    manifest = json.loads((folder[3].path / "manifest.json").read_text())
    manifest["identity"]["hash"], manifest["identity"]["parts"]["seed"] = "0" * 64, 9
    (folder[3].path / "manifest.json").write_text(json.dumps(manifest))
    by_status = {"missing": 1, "failed": 2, "stale": 3, "done": 4}
    plan = plan_of(tiny, overwrite=overwrite)
    assert plan.counts() == {"done": 1, "missing": 1, "stale": 1, "failed": 1}
    running = {step.seed for step in trainings(plan.to_run)}
    assert running == {by_status[status] for status in expected}
    assert plan.jobs["train:teacher__same/sft/seed2"].outputs[0].reason == "failed: RuntimeError: broke"
    assert plan.jobs["train:teacher__same/sft/seed3"].outputs[0].reason == "seed: 9 -> 3"


def test_what_needs_a_stale_output_that_is_kept_cannot_run(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    pretend_done(plan_of(tiny))
    shutil.rmtree(plan_of(tiny).root / "cells/teacher__same/kd/seed1/eval")
    tiny["methods"] = {"kd": {"temperature": 3}}
    plan = plan_of(tiny, overwrite="never")
    assert plan.to_run == []
    (job,) = (job for job in plan.blocked if job.kind == "evaluate")
    assert "options.temperature: 2 -> 3; kept by --overwrite never" in job.reason


def test_interrupted_work_is_missing_and_goes_on(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(tiny)
    pretend_done(plan)
    store = Store(plan.root)
    folder = store.output("cells/teacher__same/kd/seed1/train")
    manifest = folder.manifest
    assert manifest is not None
    folder.begin("train", "x", Fingerprint.of(manifest.identity.parts))
    assert reasons(plan_of(tiny))["train teacher__same/kd/seed1"] == "interrupted; resumes from what is there"


def test_a_method_for_one_vocabulary_on_a_pair_with_two_names_both_models(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    tiny["pairs"][1]["methods"] = ["sft", "kd"]
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    message, _, others = str(caught.value).partition("; fix: use a method for any two: ")
    assert message.endswith(
        "pairs.1.methods: kd needs one vocabulary, but teacher 'teacher' (896 tokens) and student 'cross' (800 tokens) have "
        "different ones"
    )
    assert {"dskd-v2-eta", "uld"} <= set(others.split(", "))
    assert not {"kd", "dskd-v2"} & set(others.split(", "))


def tokenizer_folder(
    folder: Path, *, config: Content | None = None, added: dict[str, int] | None = None, **vocabulary: int
) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 2, **(config or {})}))
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    tokens = [{"content": token, "id": k} for token, k in (added or {}).items()]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": tokens}))
    return folder


def test_vocabularies_of_folders_are_compared_token_by_token(
    tiny: Content, plan_of: Callable[..., Plan], tmp_path: Path
) -> None:
    first = tokenizer_folder(tmp_path / "first", a=0, b=1)
    same = tokenizer_folder(tmp_path / "same", b=1, a=0)  # written in another order: other bytes, same vocabulary
    other = tokenizer_folder(tmp_path / "other", a=1, b=0)
    tiny["pairs"] = [{"teacher": "first", "student": "second", "methods": ["kd"]}]
    tiny["models"] = {"first": {"path": str(first)}, "second": {"path": str(same)}}
    plan_of(tiny)
    tiny["models"]["second"] = {"path": str(other)}
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    assert (
        "kd needs one vocabulary, but teacher 'first' (2 tokens) and student 'second' (2 tokens) "
        "(id 0 is 'a' for the one and 'b' for the other) have different ones; fix: use a method for any two: "
    ) in str(caught.value)


def test_a_pair_of_two_sizes_is_named_with_the_tokens_and_the_rows_of_both(
    tiny: Content, plan_of: Callable[..., Plan], tmp_path: Path
) -> None:
    first = tokenizer_folder(tmp_path / "first", config={"text_config": {"vocab_size": 8}}, a=0, b=1)
    second = tokenizer_folder(tmp_path / "second", config={"vocab_size": 4}, a=0, b=1, c=2)
    tiny["pairs"] = [{"teacher": "first", "student": "second", "methods": ["kd"]}]
    tiny["models"] = {"first": {"path": str(first)}, "second": {"path": str(second)}}
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    both = "teacher 'first' (2 tokens, a head of 8 rows) and student 'second' (3 tokens, a head of 4 rows)"
    assert f"matrix.yaml: pairs.0.methods: kd needs one vocabulary, but {both} have different ones; fix: use" in str(
        caught.value
    )


def test_a_head_must_have_a_row_for_every_token_but_added_ones(
    tiny: Content, plan_of: Callable[..., Plan], tmp_path: Path
) -> None:
    padded = tokenizer_folder(tmp_path / "padded", config={"vocab_size": 8}, a=0, b=1)
    image = tokenizer_folder(tmp_path / "image", config={"vocab_size": 2}, a=0, b=1, added={"<image>": 2})
    short = tokenizer_folder(tmp_path / "short", config={"vocab_size": 1}, a=0, b=1)
    tiny["pairs"] = [{"teacher": "teacher", "student": "student", "methods": ["sft"]}]
    tiny["models"] = {"teacher": {"path": str(padded)}, "student": {"path": str(image)}}
    plan_of(tiny)
    tiny["models"]["student"] = {"path": str(short)}
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    assert (
        "matrix.yaml: pairs.0: teacher 'teacher' (2 tokens, a head of 8 rows) and student 'student' (2 tokens, a head of 1 rows): "
        "1 tokens of student 'student' have no row in its head; fix: use the tokenizer that belongs to the model"
    ) in str(caught.value)
    tiny["models"]["student"] = {
        "config": {"model_type": "llama", "vocab_size": 1},
        "tokenizer": {"path": str(padded)},
        "seed": 1,
    }
    with pytest.raises(InputError, match=r"a head of 1 rows\): 1 tokens of student 'student' have no row"):
        plan_of(tiny)


def test_a_teacher_says_once_what_all_its_students_methods_and_seeds_learn_from(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    tiny["seeds"] = [1, 2]
    tiny["pairs"][0]["methods"] = ["sft", "kd", "dskd-v2"]
    plan = plan_of(tiny)
    (cache,) = caches(plan)
    taught = [step for step in trainings(plan.jobs.values()) if step.teacher]
    assert len(taught) == 6
    for step in taught:
        assert step.cache == cache
        assert cache in step.needs
    sft = training(plan, "teacher__same/sft/seed1")
    assert sft.cache is None
    assert cache not in sft.needs
    # The teacher alone reads this data: a student's tokenizer is nothing to it.
    assert cache.data.teacher_tokenizer is None
    assert isinstance(cache.data.student_tokenizer, WorldTokenizer)
    assert cache.data.student_tokenizer.name == "bytelevel"


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (
            "x-token",
            {"teacher_outputs": {"kind": "top_k", "k": 8, "temperature": 1.0}},
            "teacher_outputs.kind: x-token cannot learn from top_k; fix: kind: hidden_states, or only the methods that can",
        ),
        (
            "simct",
            {"training": {"rollouts": {"share": 1.0}}},
            "training.rollouts: a cached teacher cannot judge text that is not written yet; fix: teacher_outputs: {kind: live}",
        ),
    ],
)
def test_what_a_new_method_cannot_learn_from_is_refused_with_what_it_can(
    tiny: Content, plan_of: Callable[..., Plan], method: str, changes: Content, message: str
) -> None:
    for pair in tiny["pairs"]:
        pair["methods"] = [method]
    for key, value in changes.items():
        tiny[key] = {**(tiny[key] if key == "training" else {}), **value}
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    assert str(caught.value).partition("matrix.yaml: ")[2].startswith(message)


def test_a_live_teacher_needs_no_signal_and_another_signal_makes_its_trainings_stale(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    pretend_done(plan_of(tiny))
    tiny["teacher_outputs"] = {"kind": "live"}
    plan = plan_of(tiny)
    assert not caches(plan)
    assert reasons(plan)["train teacher__same/kd/seed1"] == 'signal.kind: "hidden_states" -> "live" (and 2 more)'
    assert "train teacher__same/sft/seed1" not in reasons(plan)
    tiny["teacher_outputs"] = {"kind": "hidden_states", "stored_dtype": "float16"}
    assert reasons(plan_of(tiny))["teacher cache of teacher on student"] == "not made yet"


def test_a_signal_that_a_method_cannot_learn_from(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    tiny["teacher_outputs"] = {"kind": "top_k", "k": 8}
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    message, _, able = str(caught.value).partition("matrix.yaml: ")[2].partition(" (")
    assert message == (
        "teacher_outputs.kind: dskd-v2-eta cannot learn from top_k; fix: kind: hidden_states, or only the methods that can"
    )
    assert "kd" in able.rstrip(")").split(", ")
    tiny["pairs"].pop()
    (cache,) = caches(plan_of(tiny))
    assert cache.options == {"kind": "top_k", "k": 8, "temperature": 2.0}
    tiny["methods"] = {"kd": {"temperature": 1.5}}
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    assert str(caught.value).partition("matrix.yaml: ")[2] == (
        "teacher_outputs.temperature: the distributions are at temperature 2, but kd compares them at 1.5; "
        "fix: temperature: 1.5, here or in the method's options"
    )


def test_how_a_training_is_computed_is_no_part_of_what_comes_out(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    pretend_done(plan_of(tiny))
    tiny["training"]["chunk_tokens"] = 7
    tiny["launch"] = {"processes": 1}
    assert plan_of(tiny).to_run == []


def test_every_process_adds_examples_to_a_step_so_their_number_matters(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    pretend_done(plan_of(tiny))
    tiny["launch"] = {"processes": 2}
    changed = [job for job in plan_of(tiny).to_run if job.kind == "train"]
    assert changed
    assert all(job.outputs[0].reason == "processes: 1 -> 2" for job in changed)


def test_more_layers_than_there_are(tiny: Content, plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path / "model", a=0)
    tiny["models"] |= {"whole": {"path": str(folder)}, "part": {"layers_of": "whole", "layers": 3}}
    tiny["pairs"] = [{"teacher": "whole", "student": "part", "methods": ["sft"]}]
    with pytest.raises(InputError, match=r"models\.part\.layers: whole has 2 layers, not 3"):
        plan_of(tiny)


@pytest.mark.parametrize("content", ['{"num_hidden', "[1]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", b"\xff"])
def test_a_damaged_configuration_is_named_with_its_key(
    tiny: Content, plan_of: Callable[..., Plan], tmp_path: Path, content: str | bytes
) -> None:
    folder = tokenizer_folder(tmp_path / "model", a=0)
    (folder / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    tiny["models"] |= {"whole": {"path": str(folder)}, "part": {"layers_of": "whole", "layers": 1}}
    tiny["pairs"] = [{"teacher": "whole", "student": "part", "methods": ["sft"]}]
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    assert f"matrix.yaml: models.whole.path: {folder}/config.json: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ['{"model": {"vo', "[1]", "{}", '{"model": []}', '{"model": {"vocab": [1]}}'])
def test_a_damaged_tokenizer_is_named(
    tiny: Content, plan_of: Callable[..., Plan], tmp_path: Path, content: str
) -> None:
    folders = [tokenizer_folder(tmp_path / name, a=0) for name in ("first", "second")]
    (folders[1] / "tokenizer.json").write_text(content)
    tiny["models"] = {folder.name: {"path": str(folder)} for folder in folders}
    tiny["pairs"] = [{"teacher": "first", "student": "second", "methods": ["kd"]}]
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    assert str(caught.value).startswith(f"{folders[1]}/tokenizer.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["models"].update(teacher={"path": "nowhere"}), "models.teacher.path: no folder 'nowhere'"),
        (lambda m: m["data"].update(student={"file": "nothing.jsonl"}), "data.student.file: no file 'nothing.jsonl'"),
        (
            lambda m: m["models"]["same"].update(tokenizer={"path": "nowhere"}),
            "models.same.tokenizer.path: no folder 'nowhere'",
        ),
    ],
)
def test_files_that_are_not_there_are_named_with_their_key(
    tiny: Content, plan_of: Callable[..., Plan], change: Callable[[Content], Any], message: str
) -> None:
    change(tiny)
    with pytest.raises(InputError) as caught:
        plan_of(tiny)
    assert message in str(caught.value)


def test_a_missing_model_that_the_chosen_cells_do_not_use_is_no_error(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    tiny["models"]["cross"] = {"path": "nowhere"}
    assert plan_of(tiny, only=["student=same"]).to_run


def test_a_begin_token_does_not_make_another_vocabulary(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path], tmp_path: Path
) -> None:
    from harness.smallworld.tokenizers import write_byte_level
    from harness.steps.create_model import new_model

    write_byte_level(tmp_path / "tokenizer", ["some text to learn from, 1234567890"] * 5)
    config = {key: value for key, value in tiny["models"]["same"]["config"].items() if key != "vocab_size"}
    new_model(config, tmp_path / "tokenizer", 0, tmp_path / "model")
    tiny["models"] = {
        "teacher": {"path": str(tmp_path / "model"), "add_bos_token": True},
        "same": {"path": str(tmp_path / "model")},
        "layers": {"layers_of": "teacher", "layers": 1},
    }
    tiny["pairs"] = [{"teacher": "teacher", "student": name, "methods": ["kd"]} for name in ("same", "layers")]
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "out")
    assert [job.title for job in plan.jobs.values() if job.kind == "train"] == [
        "train teacher__same/kd/seed1",
        "train teacher__layers/kd/seed1",
    ]


def test_rollouts_need_a_live_teacher_and_methods_that_take_them(
    tiny: Content, write_matrix: Callable[[Any], Path]
) -> None:
    tiny["training"]["rollouts"] = {"share": 0.5}
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd"]}]
    with pytest.raises(
        InputError, match=r"cannot judge text that is not written yet; fix: teacher_outputs: \{kind: live\}"
    ):
        make_plan(str(write_matrix(tiny)))
    tiny["teacher_outputs"] = {"kind": "live"}
    assert make_plan(str(write_matrix(tiny))).to_run
    identities = []
    for more in ({}, {"engine": "vllm"}, {"gpu_memory_utilization": 0.5}):
        tiny["training"]["rollouts"] = {"share": 0.5, **more}
        (step,) = trainings(make_plan(str(write_matrix(tiny))).to_run)
        identities.append(step.fingerprint.hash)
    assert identities[0] != identities[1]
    assert identities[0] == identities[2]
    tiny["pairs"][0]["methods"] = ["kd", "sft"]
    with pytest.raises(InputError, match="sft learns from the data's text alone"):
        make_plan(str(write_matrix(tiny)))


def _with_on_policy_variant(content: Content) -> Content:
    """kd on the data's text from a teacher cache, and on the student's own from the live teacher."""
    rollouts = {"share": 0.5, "max_new_tokens": 8}
    variant = {"method": "kd", "training": {"rollouts": rollouts, "steps": 3}, "teacher_outputs": {"kind": "live"}}
    content["methods"] = {"kd-on-policy": variant}
    content["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd", "kd-on-policy"]}]
    return content


def test_a_variant_is_planned_with_its_own_training_and_signal(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    plan = plan_of(_with_on_policy_variant(tiny))
    (cache,) = caches(plan)
    off, on = trainings(plan.jobs.values())
    assert [step.title for step in (off, on)] == [
        f"train teacher__same/{name}/seed1" for name in ("kd", "kd-on-policy")
    ]
    assert cache in off.needs
    assert cache not in on.needs
    assert (off.cache, on.cache) == (cache, None)
    assert [step.training.steps for step in (off, on)] == [2, 3]
    assert off.training.rollouts is None
    assert on.training.rollouts is not None
    assert on.training.rollouts.max_new_tokens == 8
    assert off.data is on.data


def test_a_change_of_a_variants_training_makes_it_alone_stale(tiny: Content, plan_of: Callable[..., Plan]) -> None:
    pretend_done(plan_of(_with_on_policy_variant(tiny)))
    assert not plan_of(tiny).to_run
    tiny["methods"]["kd-on-policy"]["training"]["rollouts"]["max_new_tokens"] = 9
    changed = reasons(plan_of(tiny))
    assert changed["train teacher__same/kd-on-policy/seed1"] == "training.rollouts.max_new_tokens: 8 -> 9"
    assert not [title for title in changed if "/kd/" in title]
    # What the variant says for itself, the matrix cannot change; what it does not say, it can.
    tiny["methods"]["kd-on-policy"]["training"]["rollouts"]["max_new_tokens"] = 8
    tiny["training"]["steps"] = 4
    assert [title for title in reasons(plan_of(tiny)) if title.startswith("train")] == ["train teacher__same/kd/seed1"]
    tiny["training"] |= {"steps": 2, "learning_rate": 0.01}
    assert len([title for title in reasons(plan_of(tiny)) if title.startswith("train")]) == 2


def test_a_variant_without_what_its_rollouts_need_is_an_error_with_its_key(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    del _with_on_policy_variant(tiny)["methods"]["kd-on-policy"]["teacher_outputs"]
    where = "matrix.yaml: methods.kd-on-policy.training.rollouts: "
    with pytest.raises(InputError, match=where + r"a cached teacher cannot .* fix: teacher_outputs: \{kind: live\}"):
        plan_of(tiny)
    tiny["methods"]["kd-on-policy"] |= {"method": "sft", "teacher_outputs": {"kind": "live"}}
    with pytest.raises(InputError, match=where + "sft learns from the data's text alone"):
        plan_of(tiny)
    tiny["methods"] = {"kd-on-policy": {"method": "dskd-v2", "teacher_outputs": {"kind": "top_k"}}}
    with pytest.raises(
        InputError, match=r"matrix.yaml: methods.kd-on-policy.teacher_outputs.kind: dskd-v2 cannot learn"
    ):
        plan_of(tiny)


def test_statistics_of_the_teachers_padded_batch_need_a_live_teacher_and_rows_that_are_not_packed(
    tiny: Content, plan_of: Callable[..., Plan]
) -> None:
    tiny["methods"] = {
        "as-published": {"method": "dskd.upstream.methods:DualSpaceV1CrossModelAttention", "upstream_parity": True}
    }
    tiny["pairs"] = [{"teacher": "teacher", "student": "cross", "methods": ["dskd-v1-cma", "as-published"]}]
    where, needs = "matrix.yaml: methods.as-published.", "dskd-v1-cma needs the teacher's prompt and padding, which "
    with pytest.raises(
        InputError, match=f"{where}teacher_outputs.kind: {needs}no cache and no server has; fix: kind: live"
    ):
        plan_of(tiny)
    tiny["methods"]["as-published"] |= {"teacher_outputs": {"kind": "live"}}
    assert plan_of(tiny).to_run
    tiny["training"]["packing"] = True
    where = "matrix.yaml: training.packing: "
    with pytest.raises(InputError, match=f"{where}{needs}packed rows do not have; fix: packing: false"):
        plan_of(tiny)
    tiny["methods"]["as-published"]["training"] = {"packing": False}
    assert plan_of(tiny).to_run


def test_a_method_that_learns_from_the_student_s_text_alone_is_told_so_when_it_is_planned(
    tiny: Content, write_matrix: Callable[[Any], Path]
) -> None:
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["minillm"]}]
    with pytest.raises(
        InputError, match=r"methods\.minillm\.training\.rollouts: minillm learns from on-policy text alone"
    ):
        make_plan(str(write_matrix(tiny)))
    rollouts = {"training": {"rollouts": {"share": 1.0}}, "teacher_outputs": {"kind": "live"}}
    tiny["methods"] = {"minillm": rollouts}
    assert make_plan(str(write_matrix(tiny))).to_run
