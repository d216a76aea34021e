"""Templates: saved with the tokenizer, the same in training and in evaluation, and an end of turn that is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dskd.data.preparation import encode_prompt, has_templates, load_examples, prepare_dataset
from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.prompt_templates import Instruction, Template, describe, prompt_text, set_template, template_of
from helpers.tiny_tokenizers import byte_level, sentencepiece

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# As Llama 2's kind: the template writes the begin token, and a system message is an error.
BEGUN = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def chat_tokenizer(template: str = CHAT) -> Any:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = template
    return tokenizer


def saved(tokenizer: Any, folder: Path) -> Path:
    tokenizer.save_pretrained(folder)
    return folder


def test_alpaca_has_a_section_for_the_input_only_where_there_is_one() -> None:
    tokenizer = byte_level()
    set_template(tokenizer, Template(kind="alpaca"))
    assert prompt_text(tokenizer, Instruction("Name it.")).endswith("### Instruction:\nName it.\n\n### Response:\n")
    with_input = prompt_text(tokenizer, Instruction("Name it.", "a cat"))
    assert with_input.endswith("### Instruction:\nName it.\n\n### Input:\na cat\n\n### Response:\n")
    assert tokenizer.eos_token == "<|end|>"


def test_a_chat_is_what_the_tokenizer_s_own_template_writes_and_ends_with_its_turn(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    set_template(tokenizer, Template(kind="chat", system="Be brief."))
    again = load_tokenizer(saved(load_tokenizer(saved(tokenizer, tmp_path / "one")), tmp_path / "two"))
    assert template_of(again) == Template(kind="chat", system="Be brief.")
    assert again.eos_token == "<|turn|>"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name it.\n\na cat"}]
    text = prompt_text(again, Instruction("Name it.", "a cat"))
    assert text == "<|system|>\nBe brief.<|turn|>\n<|user|>\nName it.\n\na cat<|turn|>\n<|assistant|>\n"
    ids = again.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert encode_prompt(again, text) == list(ids)


def test_a_template_that_writes_the_begin_token_gets_no_second_one() -> None:
    tokenizer = sentencepiece()
    tokenizer.chat_template = BEGUN
    set_template(tokenizer, Template(kind="chat"))
    assert tokenizer.eos_token == "</s>"
    ids = encode_prompt(tokenizer, prompt_text(tokenizer, Instruction("The river")))
    assert ids.count(tokenizer.bos_token_id) == 1
    # And one that writes none gets none, though the tokenizer adds one to any other text.
    tokenizer.chat_template = BEGUN.removeprefix("{{ bos_token }}")
    assert tokenizer.bos_token_id not in encode_prompt(tokenizer, prompt_text(tokenizer, Instruction("The river")))


def test_each_model_of_a_pair_sees_its_own_template_and_labels_end_with_its_own_end(tmp_path: Path) -> None:
    import datasets

    student, teacher = sentencepiece(), chat_tokenizer()
    set_template(student, Template(kind="alpaca"))
    set_template(teacher, Template(kind="chat"))
    rows = [
        {"instruction": "Say it.", "input": "green", "output": "The river is green."},
        {"instruction": "Go.", "output": "42"},
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folders = saved(student, tmp_path / "student"), saved(teacher, tmp_path / "teacher")
    report = prepare_dataset(data, tmp_path / "set", student=folders[0], teacher=folders[1])
    assert report.kept == 2
    row = datasets.load_from_disk(tmp_path / "set")[0]
    asked = Instruction("Say it.", "green")
    for name, tokenizer in (("student", student), ("teacher", teacher)):
        prompt = encode_prompt(tokenizer, prompt_text(tokenizer, asked))
        ids = row[f"{name}_ids"]
        assert ids[: row[f"{name}_prompt_length"]] == prompt
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids[len(prompt) : -1]).strip() == "The river is green."
    assert row["teacher_ids"][-1] == teacher.convert_tokens_to_ids("<|turn|>")
    # The two ends are a pair.
    last = row["student_pairs"][-1], row["teacher_pairs"][-1]
    assert last == tuple(len(row[f"{name}_ids"]) - row[f"{name}_prompt_length"] - 1 for name in ("student", "teacher"))


def test_a_text_for_a_template_and_an_instruction_without_one_are_errors() -> None:
    tokenizer = byte_level()
    with pytest.raises(InputError, match="no template for an instruction"):
        prompt_text(tokenizer, Instruction("Go."))
    assert prompt_text(tokenizer, "Go.") == "Go."
    set_template(tokenizer, Template(kind="alpaca"))
    with pytest.raises(InputError, match="is a whole text; fix: give instruction"):
        prompt_text(tokenizer, "Go.")
    with pytest.raises(InputError, match=r"has a prompt template and .* has none"):
        has_templates(tokenizer, byte_level())


def test_what_cannot_be_a_chat_is_one_line() -> None:
    with pytest.raises(InputError, match=r"no chat template; fix: .* use alpaca"):
        set_template(byte_level(), Template(kind="chat"))
    endless = chat_tokenizer("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(InputError, match="could not learn to stop"):
        set_template(endless, Template(kind="chat"))
    begun = sentencepiece()
    begun.chat_template = BEGUN
    with pytest.raises(InputError, match=r"does not take these messages \(no system\)"):
        set_template(begun, Template(kind="chat", system="Be brief."))
    with pytest.raises(ValueError, match="means nothing with kind: alpaca"):
        Template(kind="alpaca", system="Be brief.")


def test_a_record_tells_two_templates_apart() -> None:
    one, other = (
        chat_tokenizer(),
        chat_tokenizer(CHAT.replace("<|{{ m.role }}|>", "{{ m.role }}:").replace("<|assistant|>", "assistant:")),
    )
    assert describe(one) is None
    for tokenizer in (one, other):
        set_template(tokenizer, Template(kind="chat"))
    found = [describe(tokenizer) for tokenizer in (one, other)]
    assert [given["kind"] for given in found if given] == ["chat", "chat"]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0]["sha256"] != found[1]["sha256"]


def test_instructions_are_read_by_their_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "p", "instruction": "i", "input": None, "output": "o"}) + "\n")
    assert load_examples(path)[0].prompt == "p"
    assert load_examples(path, instructions=True)[0].prompt == Instruction("i", "")
    path.write_text(json.dumps({"prompt": "p", "output": "o"}) + "\n")
    with pytest.raises(InputError, match=r"rows\.jsonl:1: instruction and output must be strings"):
        load_examples(path, instructions=True)
    path.write_text(json.dumps({"instruction": "i", "input": 3, "output": "o"}) + "\n")
    with pytest.raises(InputError, match=r"rows\.jsonl:1: input must be a string"):
        load_examples(path, instructions=True)
