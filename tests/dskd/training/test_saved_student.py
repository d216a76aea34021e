"""What a student's folder says once it is trained: it stops elsewhere as it did here, and is saved whatever its settings were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from dskd.data.preparation import prepare_dataset
from dskd.tokenization.prompt_templates import Template, set_template
from dskd.training.options import TrainingOptions
from dskd.training.run import train
from helpers.llama_folders import change_json, write_llama
from helpers.tiny_tokenizers import byte_level

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED = [("Name a colour.", "Blue."), ("Name a city.", "Oslo.")]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model, which ends a text with <|end|>, and whose tokenizer has a chat template with a turn's end of its own."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE
    return write_llama(tmp_path / "base", tokenizer=tokenizer)


def trained(folder: Path, student: Path, rows: list[dict[str, str]], **options: Any) -> Path:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare_dataset(data, folder / "data", student=student)
    train(
        data=folder / "data",
        student=student,
        options=TrainingOptions(**{"steps": 3, "batch_size": 2, "learning_rate": 2e-2, **options}),
        output=folder / "run",
    )
    return folder / "run" / "model"


def ends_in(folder: Path) -> list[Any]:
    names = ("config.json", "generation_config.json")
    own = AutoTokenizer.from_pretrained(folder).eos_token_id
    return [own, *(json.loads((folder / name).read_text())["eos_token_id"] for name in names)]


@pytest.mark.parametrize("lora", [None, {"rank": 16, "alpha": 64}])
def test_a_student_of_a_chat_template_stops_by_transformers_alone(base: Path, tmp_path: Path, lora: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    before = tokenizer.eos_token_id
    set_template(tokenizer, Template(kind="chat"))
    tokenizer.save_pretrained(base)
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ends_in(base) == [turn, before, before]
    rows = [{"instruction": question, "output": answer} for question, answer in ASKED]
    steps = 60 if lora is None else 3
    student = trained(tmp_path, base, rows, lora=lora, steps=steps)
    assert ends_in(student) == [turn, turn, [turn, before]]
    if lora is None:
        loaded, model = AutoTokenizer.from_pretrained(student), AutoModelForCausalLM.from_pretrained(student)
        messages = [{"role": "user", "content": ASKED[0][0]}]
        asked = loaded.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        written = model.generate(**asked, max_new_tokens=30, do_sample=False)[0][asked["input_ids"].shape[1] :]
        assert loaded.decode(written) == "Blue.<|im_end|>"


def test_the_end_of_a_student_without_template_stays(base: Path, tmp_path: Path) -> None:
    before = AutoTokenizer.from_pretrained(base).eos_token_id
    student = trained(tmp_path, base, [{"prompt": question, "output": answer} for question, answer in ASKED])
    assert ends_in(student) == [before, before, before]


def test_a_student_whose_generation_settings_could_not_be_saved_is_saved(base: Path, tmp_path: Path) -> None:
    change_json(base / "generation_config.json", temperature=0.9, top_p=0.6, max_length=4096)
    rows = [{"prompt": question, "output": answer} for question, answer in ASKED]
    student = trained(tmp_path, base, rows, checkpoint_steps=1)
    settings = json.loads((student / "generation_config.json").read_text())
    assert [settings[key] for key in ("do_sample", "temperature", "top_p", "max_length")] == [True, 0.9, 0.6, 4096]
