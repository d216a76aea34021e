"""The card of a student says what it was made of, how it scores and whose terms may bind it, and nothing of this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from huggingface_hub import ModelCard

from dskd.data.encoding import encode_prompt
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import Instruction, Template, prompt_text, set_template
from dskd.training.provenance import License, Origin, read_provenance
from harness.cli import main
from harness.publish.bibtex import bibtex
from harness.publish.card import card_text
from harness.publish.markdown import fenced, table, text
from harness.publish.student import model_folder_in, read_student
from harness.publish.usage import usage_section
from harness.runs.identity import FileHashes
from helpers.hub_server import HubServer
from helpers.tuned_runs import tuning_record

CELL = "teacher__cross/dskd-v2-eta/seed1"


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def change(folder: Path, **origins: Any) -> None:
    """Say in a student's folder that it was made of something else."""
    made = read_provenance(folder)
    assert made is not None
    made.model_copy(update=origins).write(folder)


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_scores_are_of_this_student_with_interval_samples_teacher_and_seeds(run: Path) -> None:
    card = invoke("card", CELL, "--run", run)
    assert card.exit_code == 0, card.output
    rows = [line for line in section(card.stdout, "Scores").splitlines() if line.startswith("| small")]
    assert rows[0].startswith(r"| small\_math (version 1) | numeric | 40.0 | 31.0 to 49.0 | 10 | 90.0 | 50.0 | ")
    assert rows[0].endswith(" | 2 |")
    assert rows[1] == r"| small\_math (version 1) | strict | none: no number | – | 10 | – | – | – | – |"
    said = section(card.stdout, "Scores")
    assert "1 cut off at the token limit of 10 completions" in said
    assert "3 of 10 test items share 13 consecutive words with the training data mine" in said
    other = invoke("card", CELL.replace("seed1", "seed2"), "--run", run)
    assert "| 60.0 | 51.0 to 69.0 |" in other.stdout


def test_a_folder_of_the_run_is_its_cell_and_a_run_of_other_weights_has_no_scores(run: Path, tmp_path: Path) -> None:
    train = run / "cells" / CELL / "train"
    by_cell = invoke("card", CELL, "--run", run).stdout
    assert {invoke("card", place).stdout for place in (train, train / "model", train.parent)} == {by_cell}
    alone = tmp_path / "alone"
    shutil.copytree(train / "model", alone)
    assert "Not evaluated." in invoke("card", alone).stdout
    refused = invoke("card", alone, "--run", run)
    assert refused.exit_code == 2
    assert f"--run {run}: has no evaluation of {alone}; fix: " in refused.stderr


def test_evaluations_of_the_very_weights_count_wherever_they_were_made(run: Path, student: Path) -> None:
    place = run / "cells" / "teacher" / "teacher" / "eval" / "small_math@v1" / "result.json"
    content = json.loads(place.read_text())
    content["identity"]["parts"]["model"]["files"] = FileHashes().model_folder(student)
    place.write_text(json.dumps(content))
    (score, _) = read_student(student, run).scores
    assert score.record.metrics["numeric"].value == 90.0
    assert (score.teacher, score.seeds) == (None, None)


def test_cost_and_what_it_was_made_of(run: Path) -> None:
    card = invoke("card", CELL, "--run", run).stdout
    cost = section(card, "Cost")
    for row in (
        "| student tokens trained on | 3,456 |",
        "| training time | 12 s |",
        "| peak memory | 1,024 MiB |",
        "| teacher cache, once for all trainings that read it | 5 s |",
        "| optimizer steps | 2 |",
    ):
        assert row in cost
    made = section(card, "What it was made of")
    assert "[arXiv 2504.11426](https://arxiv.org/abs/2504.11426)" in made
    settings = yaml.safe_load(made.split("```yaml\n")[1].split("```")[0])
    assert settings["training"]["steps"] == 2
    assert settings["method"]["kd_rate"] == 0.5
    assert "transformers " in made
    assert "- Code: dskd-harness, commit " in made


def test_a_card_says_how_the_setting_was_chosen_where_it_was_tuned(run: Path) -> None:
    assert "How its setting was chosen" not in invoke("card", CELL, "--run", run).stdout
    place = run / "cells" / CELL / "train" / "result.json"
    content = json.loads(place.read_text())
    hostile = "<script>|\n# a"
    content["tuning"] = tuning_record(space={"kd_rate": "0.3 to 1", hostile: hostile}).model_dump(mode="json")
    place.write_text(json.dumps(content))
    said = section(invoke("card", CELL, "--run", run).stdout, "How its setting was chosen")
    assert "- Trials: 6 of a budget of 6 trials, of another seed than this model\n" in said
    assert r"- Compared on: small\_math:validation" in said
    assert r"- Chosen: divergence forward\_kl, kd\_rate 0.7, training.learning\_rate 0.0005 (trial 2; " in said
    assert "90.0; of the default 60.0. It is the best of all trials, and so too high." in said
    assert r"| kd\_rate | 0\.3 to 1 |" in said
    assert "<script>" not in said
    assert "\n# a" not in said


def test_the_front_matter_holds_ids_of_the_hub_alone(run: Path) -> None:
    folder = run / "cells" / CELL / "train" / "model"
    before = ModelCard(card_text(read_student(folder))).data
    assert (before.base_model, before.datasets, before.license) == (None, None, None)
    assert (before.library_name, before.pipeline_tag) == ("transformers", "text-generation")
    assert {"distillation", "dskd-v2-eta"} <= set(before.tags)
    base = Origin(name="cross", hub="org/base", revision="c" * 40, license=License(id="apache-2.0"))
    change(folder, student=base, data=Origin(name="mine", hub="org/rows"), teacher=Origin(name="t", hub="org/teacher"))
    card = card_text(read_student(folder), "me/mine")
    data = ModelCard(card).data
    assert (data.base_model, data.datasets, data.license) == ("org/base", ["org/rows"], "apache-2.0")
    assert data.base_model_relation == "finetune"
    assert data.model_name == "mine"
    assert [(each.metric_type, each.metric_value) for each in data.eval_results] == [("numeric", 40.0)]
    assert "[org/base](https://huggingface.co/org/base) | the hub, commit cccc" in card
    assert "on [org/rows](https://huggingface.co/datasets/org/rows) by" in card
    assert 'from_pretrained("me/mine")' in card
    assert ModelCard(card_text(read_student(folder), license="mit")).data.license == "mit"


def test_licences_that_are_not_known_are_named_and_a_teachers_terms_too(run: Path) -> None:
    folder = run / "cells" / CELL / "train" / "model"
    taught = Origin(name="t", license=License(id="other", name="llama3", link="https://example.org/llama3"))
    change(folder, teacher=taught)
    said = section(card_text(read_student(folder)), "Licences")
    assert "| teacher | t | [llama3](https://example.org/llama3) |" in said
    assert "The terms of a teacher may bind models that are trained on what it gives" in said
    assert "Licences that are not known: student before training, training data." in said
    change(folder, teacher=None)
    assert "terms of a teacher" not in section(card_text(read_student(folder)), "Licences")


def test_licences_come_from_the_cards_on_the_hub(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run / "cells" / CELL / "train" / "model"
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "README.md").write_text("---\nlicense: gemma\n---\n# A teacher\n")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.jsonl").write_text("{}\n")
    with HubServer(tmp_path / "served") as hub:
        commit = hub.add_model("org/teacher", tmp_path / "teacher")
        hub.add_dataset("org/rows", tmp_path / "rows")
        change(
            folder,
            teacher=Origin(name="t", hub="org/teacher", revision=commit),
            student=Origin(name="s", hub="org/none"),
            data=Origin(name="mine", hub="org/rows"),
        )
        hub.point_client_here(monkeypatch)
        told = invoke("card", folder)
    said = section(told.stdout, "Licences")
    assert "| teacher | [org/teacher](https://huggingface.co/org/teacher) | gemma |" in said
    assert "Licences that are not known: student before training, training data." in said
    assert "warning: the card of org/none cannot be read" in told.stderr


def test_the_template_is_shown_as_it_was_rendered(chat_student: Path) -> None:
    card = card_text(read_student(chat_student))
    said = section(card, "How it was trained to be asked")
    assert "In its tokenizer's chat template. An answer ends with &lt;/s\\>" in said
    assert "system: Be brief." in said
    assert "<|system|>Be brief.</s><|user|>{instruction}</s><|assistant|>" in said


PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
DATED = "{{ date_string }}" + PLAIN
TODAY = "{{ strftime_now('%d %b %Y') }}" + PLAIN
HYBRID = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    ("chat_template", "settings", "by_template"),
    [
        (DATED, {}, True),
        (TODAY, {}, False),
        (HYBRID, {"arguments": {"enable_thinking": False}}, True),
        (HYBRID, {}, False),
        (DATED, {"system": "Be brief.", "arguments": {"a-b": 1}}, False),
    ],
)
def test_the_code_of_the_card_gives_the_ids_that_were_trained(
    student: Path, tmp_path: Path, chat_template: str, settings: dict[str, Any], by_template: bool
) -> None:
    folder = tmp_path / "chat"
    shutil.copytree(student, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = chat_template
    set_template(tokenizer, Template(kind="chat", **settings))
    tokenizer.save_pretrained(folder)
    code = usage_section(folder, "org/name")
    lines = code.split('dtype="auto")\n')[1].split("output = ")[0]
    assert ("apply_chat_template" in lines) == by_template
    names: dict[str, Any] = {"tokenizer": load_tokenizer(folder)}
    exec(lines, names)
    asked = prompt_text(names["tokenizer"], Instruction("Why is the sky blue?"))
    assert names["inputs"]["input_ids"][0].tolist() == encode_prompt(names["tokenizer"], asked)


HOSTILE = "</table><script>alert(1)</script> ![x](https://evil.example/x.png) | `code` *b* \n# Title\n---\nlicense: mit"


def test_hostile_names_are_shown_and_never_rendered(run: Path) -> None:
    folder = run / "cells" / CELL / "train" / "model"
    change(folder, teacher=Origin(name=HOSTILE), data=Origin(name=HOSTILE, made=HOSTILE, license=License(id=HOSTILE)))
    card = card_text(read_student(folder))
    assert "<script" not in card
    assert "![" not in card.replace(r"!\[", "")
    assert "\n# Title" not in card
    assert "https://evil" not in card
    assert ModelCard(card).data.license is None
    header, rule, *rows = section(card, "Licences").strip().splitlines()[:6]
    assert all(line.replace(r"\|", "").count("|") == 4 for line in (header, rule, *rows))


def test_text_of_markdown_is_written_so_that_it_is_shown() -> None:
    assert text("a_b|c<d>") == r"a\_b\|c&lt;d\>"
    assert text("# x") == r"\# x"
    assert text("1. x") == "1\\. x"
    assert text("www.x.y a@b.c https://z") == r"www\.x.y a\@b.c https:\//z"
    assert text("x" * 1000).endswith("…")
    assert fenced("a\n````\nb").startswith("`````\n")
    assert table(["a"], [["b"]]) == "| a |\n| --- |\n| b |\n"


def test_citation_has_the_methods_own_paper_where_it_is_another() -> None:
    ours, other = bibtex("arXiv 2504.11426"), bibtex("arXiv 2306.13649")
    assert ours.count("@misc{") == 3
    assert "eprint = {2504.11426}" in ours
    assert "eprint = {2306.13649}" in other
    assert "2504.11426" not in other
    assert bibtex("–").count("@misc{") == 3


def test_write_puts_it_into_the_folder_once(student: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(student, folder)
    assert invoke("card", folder, "--write").exit_code == 0
    written = (folder / "README.md").read_text()
    assert written == invoke("card", folder).stdout
    (folder / "README.md").write_text("mine\n")
    again = invoke("card", folder, "--write")
    assert (again.exit_code, (folder / "README.md").read_text()) == (2, "mine\n")
    assert "exists; fix: --overwrite to replace it" in again.stderr
    assert invoke("card", folder, "--write", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nothing", "no cell"),
        ("empty", "holds no student (a folder with config.json, or the folder of a training)"),
        ("foreign", "does not say what it was made of"),
    ],
)
def test_what_is_no_student_is_refused(run: Path, world: Path, tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(world / "cross", tmp_path / "foreign")
    given = tmp_path / place if place != "nothing" else "teacher__cross/kd/seed1"
    refused = invoke("card", given, *(["--run", run] if place == "nothing" else []))
    assert refused.exit_code == 2
    assert message in refused.stderr


def test_older_students_say_what_their_records_say(run: Path, tmp_path: Path) -> None:
    folder = run / "cells" / CELL / "train" / "model"
    (folder / "provenance.json").unlink()
    card = card_text(read_student(folder))
    assert "cross, fine-tuned by DSKD" in card or "cross, distilled from teacher by DSKD" in card
    assert "| student before training | cross | not recorded |" in card
    shutil.copytree(folder, tmp_path / "train" / "model")
    request = {"method": "kd", "method_options": {}, "options": {"steps": 2}, "seed": 7}
    (tmp_path / "train" / "training_request.json").write_text(json.dumps(request))
    assert read_student(model_folder_in(tmp_path)).provenance.seed == 7
