"""How to load a published student and how it was trained to be asked: code for transformers, vLLM and peft."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dskd.modeling.loading import load_tokenizer
from dskd.modeling.lora import ADAPTER
from dskd.tokenization.chat_rendering import MOMENT
from dskd.tokenization.prompt_templates import Instruction, Template, prompt_text, template_of
from harness.publish.markdown import fenced, text

_QUESTION = "Why is the sky blue?"


def usage_section(folder: Path, repository: str) -> str:
    """Code that loads the model and asks it as it was trained to be asked; the tests run it."""
    tokenizer = load_tokenizer(folder)
    asking = _asking(tokenizer, template_of(tokenizer))
    name = json.dumps(repository)
    parts = [
        f"It needs transformers {_saved_by(folder)} or later, and nothing of the project that trained it.\n",
        fenced(_TRANSFORMERS.format(name=name, inputs=asking.inputs), "python"),
        "With vLLM:\n",
        fenced(_VLLM.format(name=name, output=asking.output), "python"),
    ]
    if (folder / ADAPTER / "adapter_config.json").is_file():
        parts += [
            f"The model is an adapter (LoRA) merged into its base. The adapter alone is in `{ADAPTER}/`, for peft:\n",
            fenced(_PEFT.format(name=name, folder=json.dumps(ADAPTER)), "python"),
        ]
    return "\n".join(parts)


def prompt_section(folder: Path) -> str:
    """The template of the model and the text that it makes of an instruction."""
    tokenizer = load_tokenizer(folder)
    template = template_of(tokenizer)
    end = f"An answer ends with {text(tokenizer.eos_token)} (id {tokenizer.eos_token_id}).\n"
    if template is None:
        return f"With whole prompts, texts as they are, without a template. {end}"
    kind = "its tokenizer's chat template" if template.kind == "chat" else "Stanford Alpaca's template"
    settings = template.model_dump(exclude_defaults=True, exclude_none=True)
    shown = prompt_text(tokenizer, Instruction("{instruction}"))
    said = fenced(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), "yaml") if len(settings) > 1 else ""
    return f"In {kind}. {end}\n{said}\n{fenced(shown, 'text')}"


_TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name})
model = AutoModelForCausalLM.from_pretrained({name}, dtype="auto")
{inputs}
output = model.generate(**inputs, max_new_tokens=256, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""

_VLLM = """\
from vllm import LLM, SamplingParams

llm = LLM({name})
sampling = SamplingParams(temperature=0, max_tokens=256)
{output}
print(output.outputs[0].text)"""

_PEFT = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("the base model's name")
model = PeftModel.from_pretrained(base, {name}, subfolder={folder})"""


@dataclass(frozen=True)
class _Asking:
    """The lines that ask a question: with transformers they make `inputs`, with vLLM `output`."""

    inputs: str
    output: str


def _asking(tokenizer: Any, template: Template | None) -> _Asking:
    """How the model is given what it was trained on: by its chat template where that writes the very prompt, else by the text."""
    if template is None or template.kind == "alpaca":
        prompt = _QUESTION if template is None else prompt_text(tokenizer, Instruction(_QUESTION))
        inputs = f'prompt = {prompt!r}\ninputs = tokenizer(prompt, return_tensors="pt")'
        return _Asking(inputs, f"(output,) = llm.generate({prompt!r}, sampling)")
    trained = prompt_text(tokenizer, Instruction(_QUESTION))
    system = [{"role": "system", "content": template.system}] if template.system is not None else []
    messages = [*system, {"role": "user", "content": _QUESTION}]
    for more in ({}, {"date_string": MOMENT.strftime("%d %b %Y")}):
        given = {**template.arguments, **more}
        if not all(key.isidentifier() for key in given):  # which could not be written as code
            break
        if tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **given) == trained:
            return _by_chat_template(messages, given)
    # What the template writes after its generation prompt, such as an empty block of reasoning, belongs to the prompt too.
    text = f"prompt = {trained!r}"
    inputs = 'inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")'
    ids = 'ids = llm.get_tokenizer()(prompt, add_special_tokens=False)["input_ids"]'
    return _Asking(
        f"{text}\n{inputs}", f'{text}\n{ids}\n(output,) = llm.generate({{"prompt_token_ids": ids}}, sampling)'
    )


def _by_chat_template(messages: list[dict[str, str]], given: dict[str, Any]) -> _Asking:
    keywords = "".join(f", {key}={value!r}" for key, value in given.items())
    inputs = (
        f"messages = {messages!r}\n"
        "inputs = tokenizer.apply_chat_template(\n"
        f'    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"{keywords}\n)'
    )
    settings = f", chat_template_kwargs={given!r}" if given else ""
    return _Asking(inputs, f"messages = {messages!r}\n(output,) = llm.chat(messages, sampling{settings})")


def _saved_by(folder: Path) -> str:
    """The version of transformers that wrote the configuration."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return text(config.get("transformers_version", "5"))
