"""A matrix of chat models on conversations with reasoning, from nothing to its table."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.runs.records import read_record
from helpers.tiny_tokenizers import byte_level, sentencepiece

Harness = Callable[..., subprocess.CompletedProcess[str]]

# Of a hybrid model: reasoning unless it is turned off, and an empty block in its place.
HYBRID = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def write_model(folder: Path, tokenizer: Any, hidden: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = HYBRID
    torch.manual_seed(hidden)
    sizes = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 1024}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=hidden, **sizes, **ends))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, conversations of up to three turns with reasoning, and a matrix of both."""
    root = tmp_path_factory.mktemp("chat")
    write_model(root / "teacher", byte_level(), 48)
    write_model(root / "student", sentencepiece(), 32)
    rows = []
    for k in range(12):
        messages: list[dict[str, str]] = []
        for turn in range(1 + k % 3):
            messages += [
                {"role": "user", "content": f"How many are {k} and {turn}?"},
                {"role": "assistant", "content": "<think>\nI count.\n</think>\n\nThe answer is 4."},
            ]
        rows.append({"messages": messages})
    (root / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "m.yaml").write_text(yaml.safe_dump(matrix(enable_thinking=True)))
    (root / "off.yaml").write_text(yaml.safe_dump(matrix(enable_thinking=False)))
    return root


def matrix(*, enable_thinking: bool) -> dict[str, Any]:
    template = {"kind": "chat", "arguments": {"enable_thinking": enable_thinking}}
    return {
        "schema_version": 1,
        "name": "chat",
        "data": {"chats": {"file": "chats.jsonl"}},
        "models": {
            "teacher": {"path": "teacher", "template": template},
            "student": {"path": "student", "template": template},
        },
        "pairs": [{"teacher": "teacher", "student": "student", "methods": ["sft", "dskd-v2-eta"]}],
        "training": {"data": "chats", "steps": 100, "batch_size": 8, "learning_rate": 0.01, "max_length": 400},
        "seeds": [1],
        "tasks": {"small_math": {"limit": 3, "max_new_tokens": 24, "max_reasoning_tokens": 40}},
        "evaluation": {"engine": "transformers", "score_teachers": False},
    }


@pytest.mark.slow
def test_a_chat_matrix_with_reasoning_runs_from_nothing_to_its_table(folder: Path, harness: Harness) -> None:
    run = harness("run", "--matrix", "m.yaml", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "dskd-v2-eta" in run.stdout
    prepared = [json.loads(path.read_text()) for path in folder.glob("runs/chat/artifacts/data/*/dataset/report.json")]
    assert len(prepared) == 2  # for the pair, and for the teacher's cache
    for report in prepared:
        assert report["turns"] == report["kept"] == 24  # earlier turns lose their reasoning, so each is a row
    reasoned = []
    for path in folder.glob("runs/chat/cells/teacher__student/*/seed1/eval/*/result.json"):
        record = read_record(path)
        assert record.template is not None
        assert record.template.model_dump()["arguments"] == {"enable_thinking": True}
        samples = [json.loads(line) for line in (path.parent / "samples.jsonl").read_text().splitlines()]
        assert len(samples) == 3
        reasoned += [sample for sample in samples if sample.get("reasoning")]
        assert all("<think>" not in sample["output"] for sample in samples)  # what is scored is the answer alone
    assert reasoned  # a student learned to reason before it answers
    student = next(folder.glob("runs/chat/cells/teacher__student/sft/seed1/train/model"))
    settings = json.loads((student / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == "<|im_end|>"


def test_reasoning_on_and_off_are_two_identities(folder: Path, harness: Harness) -> None:
    plans = []
    for name in ("m.yaml", "off.yaml"):
        shown = harness("plan", "--matrix", name, "--json", cwd=folder)
        assert shown.returncode == 0, shown.stderr
        jobs = json.loads(shown.stdout)["jobs"]
        plans.append({job["title"]: [output["identity"] for output in job["outputs"]] for job in jobs})
    assert plans[0].keys() == plans[1].keys()
    assert all(plans[0][key] != plans[1][key] for key in plans[0])
