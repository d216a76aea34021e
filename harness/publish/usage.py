"""How to load a published student and how it was trained to be asked: code for transformers, vLLM and peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from dskd.modeling.loading import load_tokenizer
from dskd.modeling.lora import ADAPTER
from dskd.tokenization.prompt_templates import Instruction, Template, prompt_text, template_of
from harness.publish.markdown import fenced, text

_QUESTION = "Why is the sky blue?"


def usage_section(folder: Path, repository: str) -> str:
    """Code that loads the model and asks it as it was trained to be asked; the tests run it."""
    tokenizer = load_tokenizer(folder)
    template = template_of(tokenizer)
    name = json.dumps(repository)
    asked = _encoded(tokenizer, template)
    parts = [
        f"It needs transformers {_saved_by(folder)} or later, and nothing of the project that trained it.\n",
        fenced(_TRANSFORMERS.format(name=name, prompt=asked), "python"),
        "With vLLM:\n",
        fenced(_VLLM.format(name=name, generate=_generate(tokenizer, template)), "python"),
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
{prompt}
output = model.generate(**inputs, max_new_tokens=256, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""

_VLLM = """\
from vllm import LLM, SamplingParams

llm = LLM({name})
{generate}
print(output.outputs[0].text)"""

_PEFT = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("the base model's name")
model = PeftModel.from_pretrained(base, {name}, subfolder={folder})"""


def _encoded(tokenizer: Any, template: Template | None) -> str:
    """The lines that make `inputs` of a question."""
    if template is not None and template.kind == "chat":
        more = "".join(f", {key}={value!r}" for key, value in _arguments(template).items())
        return (
            f"messages = {_messages(template)!r}\n"
            "inputs = tokenizer.apply_chat_template(\n"
            f'    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"{more}\n)'
        )
    return f'prompt = {_prompt(tokenizer, template)!r}\ninputs = tokenizer(prompt, return_tensors="pt")'


def _generate(tokenizer: Any, template: Template | None) -> str:
    """The lines that make `output` of a question with vLLM."""
    sampling = "SamplingParams(temperature=0, max_tokens=256)"
    if template is not None and template.kind == "chat":
        given = _arguments(template)
        more = f", chat_template_kwargs={given!r}" if given else ""
        return f"(output,) = llm.chat({_messages(template)!r}, {sampling}{more})"
    return f"(output,) = llm.generate({_prompt(tokenizer, template)!r}, {sampling})"


def _prompt(tokenizer: Any, template: Template | None) -> str:
    return _QUESTION if template is None else prompt_text(tokenizer, Instruction(_QUESTION))


def _messages(template: Template) -> list[dict[str, str]]:
    system = [{"role": "system", "content": template.system}] if template.system is not None else []
    return [*system, {"role": "user", "content": _QUESTION}]


def _arguments(template: Template) -> dict[str, Any]:
    """What the chat template was given besides messages, in training."""
    return dict(getattr(template, "arguments", None) or {})


def _saved_by(folder: Path) -> str:
    """The version of transformers that wrote the configuration."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return text(config.get("transformers_version", "5"))
