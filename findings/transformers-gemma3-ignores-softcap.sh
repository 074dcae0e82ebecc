#!/usr/bin/env bash
# Gemma 3 in transformers takes `attn_logit_softcapping` and computes nothing with it; its `final_logit_softcapping` counts.
#
# Version: transformers 5.24.0, torch 2.13.0, CPU, eager attention.
# Behaviour: Gemma3TextConfig has the key, and a Gemma 2 with the same value bends its scores by it. In Gemma 3 the logits
#   have the same bits for None, 50 and 0.001.
# Why it matters: gemma3 grew out of gemma2, and runtimes and converters that share code between the two carry the key over
#   and obey it: such a copy differs from transformers in every layer, and the configuration says that the copy is right.
# Output seen on 2026-11-28 (largest change of a logit by a bound of 0.001 in place of none):
#   gemma2 attn_logit_softcapping   0.005
#   gemma3 attn_logit_softcapping   0
#   gemma3 final_logit_softcapping  0.6
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$work/venv/bin/python" - 2>"$work/warnings" <<'PY'
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig

sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
none = {"attn_logit_softcapping": None, "final_logit_softcapping": None}


@torch.no_grad()
def logits(kind, **keys):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**sizes, **none | keys), attn_implementation="eager")
    return model.eval()(torch.arange(12)[None]).logits


moved = {}
for kind, key in ((Gemma2Config, "attn"), (Gemma3TextConfig, "attn"), (Gemma3TextConfig, "final")):
    name = f"{key}_logit_softcapping"
    found = float((logits(kind, **{name: 1e-3}) - logits(kind)).abs().max())
    moved[kind.model_type, key] = found
    print(f"{kind.model_type:<12} {name:<24} {found:.3g}")
assert moved["gemma2", "attn"] > 1e-3 and moved["gemma3_text", "final"] > 0.1
assert moved["gemma3_text", "attn"] == 0, "it is obeyed now"
PY
