#!/usr/bin/env bash
# In an LFM2 MoE the weights of a token's experts do not sum to 1: transformers adds 1e-6 to the sum that divides them.
#
# Version: transformers 5.24.0, torch 2.13.0, CPU.
# Behaviour: with `norm_topk_prob`, the default, the sigmoids of the chosen experts are divided by their sum plus 1e-6. Other
#   families that choose by sigmoids add 1e-20, which a float32 sum of such scores does not notice, or nothing. With scores
#   around a half the difference is in the last bits; where all chosen scores are small the experts give less, 1 % less
#   at logits of -10 and 82 % less at -16. No key of the config names the number.
# Why it matters: the family looks like a DeepSeek V3 without groups, and a runtime with one router for both computes
#   another model. llama.cpp (0c1e57098, by its source) adds nothing and does not let the sum fall below 6.1e-5. Where
#   scores are around a half the two agree to a millionth, so a test that has no token with small scores passes.
# Output seen on 2026-11-28 (4 experts with the same logit, 2 chosen; what their weights sum to):
#   logit   lfm2_moe      deepseek_v3   glm4_moe      minimax_m2
#   0       0.999999      1.000000      1.000000      1.000000
#   -5      0.999925      1.000000      1.000000      1.000000
#   -10     0.989106      1.000000      1.000000      1.000000
#   -16     0.183720      1.000000      1.000000      1.000000
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$work/venv/bin/python" - 2>"$work/warnings" <<'PY'
import math

import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, Glm4MoeConfig, Lfm2MoeConfig, MiniMaxM2Config

sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_experts_per_tok": 2}
sizes |= {"num_attention_heads": 4, "num_key_value_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
shared = {"moe_intermediate_size": 32, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
shared |= {"routed_scaling_factor": 1.0}
latent = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
attended = {"moe_intermediate_size": 32, "num_experts": 4, "num_dense_layers": 1, "layer_types": ["full_attention"] * 2}
kinds = [
    Lfm2MoeConfig(**sizes, **attended),
    DeepseekV3Config(**sizes, **shared, **latent),
    Glm4MoeConfig(**sizes, **shared, head_dim=16),
    MiniMaxM2Config(**sizes, num_local_experts=4, head_dim=16, rotary_dim=8),
]


@torch.no_grad()
def weight_of_experts(config, logit):
    """What the weights sum to that the last layer gives its experts, where each expert has this logit."""
    layer = AutoModelForCausalLM.from_config(config).eval().model.layers[-1]
    block = layer.feed_forward if config.model_type == "lfm2_moe" else layer.mlp
    block.gate.weight.fill_(1 / 64)
    seen = []
    block.gate.register_forward_hook(lambda gate, given, output: seen.append(output))
    block(torch.full((1, 1, 64), float(logit)))
    [(logits, weights, chosen)] = seen
    assert logits.tolist() == [[logit] * 4] and weights.shape == chosen.shape == (1, 2)
    return weights.double().sum().item()


print("logit  ", *(f"{config.model_type:<13}" for config in kinds))
for logit in (0, -5, -10, -16):
    found = [weight_of_experts(config, logit) for config in kinds]
    print(f"{logit:<7}", *(f"{value:<13.6f}" for value in found))
    sigmoids = 2 / (1 + math.exp(-logit))
    assert abs(found[0] - sigmoids / (sigmoids + 1e-6)) < 2e-7, "lfm2_moe divides by another sum now"
    assert all(abs(value - 1) < 2e-7 for value in found[1:])
assert not [key for key, value in kinds[0].to_dict().items() if value == 1e-6]
PY
