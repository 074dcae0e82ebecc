#!/usr/bin/env bash
# DeepSeek V2 and V3 in transformers norm their latents with an epsilon of 1e-6, whatever `rms_norm_eps` says.
#
# Version: transformers 5.24.0, torch 2.13.0, CPU.
# Behaviour: `q_a_layernorm` and `kv_a_layernorm` are made without an epsilon and get the default of the class, 1e-6, while
#   every other norm of the model gets `rms_norm_eps`. Published models say 1e-6, so nobody sees it.
# Why it matters: llama.cpp has one epsilon for all norms of a GGUF, these included. A model that was trained or distilled
#   with another epsilon is two models, and the difference sits in front of keys and values of every layer.
# Output seen on 2026-11-28 (rms_norm_eps 0.01):
#   deepseek_v2  input_layernorm 0.01  q_a_layernorm 1e-06  kv_a_layernorm 1e-06
#   deepseek_v3  input_layernorm 0.01  q_a_layernorm 1e-06  kv_a_layernorm 1e-06
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$work/venv/bin/python" - 2>"$work/warnings" <<'PY'
from transformers import AutoModelForCausalLM, DeepseekV2Config, DeepseekV3Config

sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32}
sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "first_k_dense_replace": 1}
sizes |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "rms_norm_eps": 1e-2}
sizes |= {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}

for kind in (DeepseekV2Config, DeepseekV3Config):
    layer = AutoModelForCausalLM.from_config(kind(**sizes)).model.layers[0]
    norms = {"input_layernorm": layer.input_layernorm}
    norms |= {name: getattr(layer.self_attn, name) for name in ("q_a_layernorm", "kv_a_layernorm")}
    found = {name: norm.variance_epsilon for name, norm in norms.items()}
    print(kind.model_type, "", *(f"{name} {value:g} " for name, value in found.items()))
    assert found == {"input_layernorm": 1e-2, "q_a_layernorm": 1e-6, "kv_a_layernorm": 1e-6}
PY
