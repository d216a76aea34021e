"""Folders of a small Llama with random weights, as files on the disk, to be damaged by tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from helpers.tiny_tokenizers import byte_level

LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{7:064}\nsize 4943162336\n"


def write_llama(folder: Path, *, seed: int = 0, shard: str = "1GB", tokenizer: Any = None, **config: Any) -> Path:
    """A Llama of two layers with a byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or byte_level()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(seed)
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    model = LlamaForCausalLM(LlamaConfig(**{"vocab_size": len(tokenizer), **ends, **sizes, **config}))
    model.save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    return folder


def write_adapter(
    folder: Path, base: Path, *, tokenizer: bool = False, named: str | None = None, **config: Any
) -> Path:
    """An adapter (LoRA) of the model in `base` that changes what it predicts; `named`: how it names its base, else by the path."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(
        model, LoraConfig(**{"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **config})
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
    adapted.save_pretrained(folder)
    change_json(folder / "adapter_config.json", base_model_name_or_path=named or str(base))
    if tokenizer:
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def in_hub_cache(folder: Path, cache: Path) -> Path:
    """The folder as the hub's cache lays it out: relative links from a snapshot to blobs."""
    snapshot, blobs = cache / "models--org--name" / "snapshots" / "0123abc", cache / "models--org--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(
            Path(*[".."] * (len(link.relative_to(cache / "models--org--name").parts) - 1)) / "blobs" / str(number)
        )
    return snapshot


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Save other weights into a folder."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
