"""Random models of all causal architectures of transformers, as small as they go."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

ROWS, SIZE = 64, 60  # rows of every head below, and the tokens of a vocabulary that leaves some of them as padding
# What a configuration may call a size, and what makes it small; factors and soft-caps get values that show.
_SMALL = {
    64: "vocab_size max_position_embeddings n_positions n_ctx max_seq_len mamba_d_ssm vocab_size_per_layer_input n_words",
    32: "hidden_size n_embd d_model embedding_dim embedding_size word_embed_proj_dim emb_dim",
    48: "intermediate_size ffn_dim n_inner encoder_ffn_dim decoder_ffn_dim dff d_inner ffn_hidden_size",
    16: "moe_intermediate_size shared_expert_intermediate_size q_lora_rank kv_lora_rank qk_head_dim mamba_d_head",
    8: "head_dim global_head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim state_size mamba_d_state "
    "hidden_size_per_layer_input",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
    "num_decoder_attention_heads num_encoder_attention_heads num_experts num_local_experts n_routed_experts mamba_n_heads "
    "rotary_dim",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers num_encoder_layers "
    "num_key_value_heads num_experts_per_tok top_k mamba_expand eos_token_id",
    1: "n_group topk_group bos_token_id",
    0: "pad_token_id num_kv_shared_layers",
    0.25: "logit_scale",
    5.0: "logits_scaling",
    0.3: "lm_head_multiplier",
    7.0: "final_logit_softcapping logits_soft_cap output_logit_soft_cap",
}
SMALL = {name: value for value, names in _SMALL.items() for name in names.split()}
_LATENT = {"num_key_value_heads": 4}  # latent attention has as many of these as of the others
OVERRIDES = {
    **dict.fromkeys(["axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite"], _LATENT),
    **dict.fromkeys(["glm_moe_dsa", "minicpm3", "youtu"], _LATENT),
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "xmod": {"default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
}
# Those for which no small random model comes of this: wrappers of several models, and shapes that depend on one another.
NOT_SMALL = {
    "blt",
    "cohere_compass_text",
    "dbrx",
    "dots1",
    "emu3",
    "gemma3n",
    "gemma4_assistant",
    "gemma4_unified_assistant",
    "kimi_linear",
    "llama4",
    "longcat_flash",
    "musicgen",
    "musicgen_melody",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen4_exp",
    "reformer",
    "zamba",
    "zamba2",
}
KINDS = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - NOT_SMALL)


def _shrunk(values: dict[str, Any], kind: str = "") -> dict[str, Any]:
    changes = {}
    for name, value in values.items():
        if isinstance(value, dict) and "model_type" in value:
            changes[name] = _shrunk(value) | {"model_type": value["model_type"]}
        elif name in SMALL:
            changes[name] = SMALL[name]
        elif name == "layer_types":
            changes[name] = None  # one a layer, so it is left to the configuration
    return changes | OVERRIDES.get(kind, {})


def small_model(kind: str) -> Any:
    """A random model of a causal architecture of transformers, with 64 rows in its head."""
    make = CONFIG_MAPPING[kind]
    config = make(**_shrunk(make().to_dict(), kind))
    torch.manual_seed(0)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[make](config).eval()
    module = model.get_output_embeddings()
    if module is not None and getattr(module, "bias", None) is not None:
        torch.nn.init.normal_(module.bias, std=0.1)  # started at zero, a bias would not show
    return model
