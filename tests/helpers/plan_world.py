"""Model folders and data that are read at planning time alone: their files have the right layout and no weights worth loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_CONFIG = {"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "vocab_size": 8}
_PUBLISHED = [
    *(
        "Qwen/Qwen2.5-Coder-7B",
        "Qwen/Qwen2.5-1.5B",
        "Qwen/Qwen2.5-Math-7B",
        "Qwen/Qwen1.5-1.8B",
        "meta-llama/Llama-3.2-1B",
    ),
    *("openai-community/gpt2", "MiniLLM/teacher-gpt2-1.5B", "meta-llama/Llama-2-7b-hf", "mistralai/Mistral-7B-v0.1"),
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
]
_SETS = [
    "dskd_format/dolly/train",
    "dskd_format/dolly/dev",
    "magicoder/sample-10k",
    "metamathqa/sample-50k",
    "gsm8k/train",
]
_PLAIN = ["<s>", "</s>", "a", "b", "c", "ab", "abc", "\n"]
_OTHER = ["<s>", "</s>", "a", "b", "c", "bc", "cab", "\n", "d"]


def write_folders(root: Path) -> Path:
    """Folders `teacher`, `student` (one vocabulary), `other`, `chat`, `adapter`, three training sets, and `models` and `data` of papers."""
    root.mkdir(parents=True, exist_ok=True)
    _model(root / "teacher", _PLAIN, b"teacher")
    _model(root / "student", _PLAIN, b"student", num_hidden_layers=2)
    _model(root / "other", _OTHER, b"other", vocab_size=16)
    _model(root / "chat", _PLAIN, b"chat")
    (root / "chat" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    adapter = root / "adapter"
    _tokenizer(adapter, _PLAIN)
    _write(adapter / "adapter_config.json", {"base_model_name_or_path": "../teacher", "r": 4})
    _write(adapter / "config.json", _CONFIG)
    (adapter / "adapter_model.safetensors").write_bytes(b"adapter")
    rows: list[dict[str, Any]] = [{"prompt": f"a {k}\n", "output": "b"} for k in range(5)]
    _lines(root / "train.jsonl", rows)
    _lines(root / "columns.jsonl", [{"question": f"{k}?", "hint": "none", "answer": k} for k in range(5)])
    _lines(root / "instructions.jsonl", [{"instruction": f"Say {k}.", "output": "a"} for k in range(5)])
    for name in _PUBLISHED:
        _model(root / "models" / name, _PLAIN, name.encode(), num_hidden_layers=48)
    _tokenizer(root / "data" / "tokenizers" / "gpt2", _OTHER)
    for name in _SETS:
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        _lines(root / "data" / f"{name}.jsonl", rows)
    return root


def _model(folder: Path, tokens: list[str], weights: bytes, **config: Any) -> None:
    _tokenizer(folder, tokens)
    _write(folder / "config.json", _CONFIG | config)
    (folder / "model.safetensors").write_bytes(weights)


def _tokenizer(folder: Path, tokens: list[str]) -> None:
    folder.mkdir(parents=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    added = [{"content": token, "id": vocabulary[token]} for token in tokens[:2]]
    _write(folder / "tokenizer.json", {"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": added})
    _write(folder / "tokenizer_config.json", {"eos_token": "</s>"})


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
