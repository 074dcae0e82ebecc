#!/usr/bin/env bash
# A flat `rope_parameters` in a Gemma 3 config.json is kept, shown, and not used.
#
# Version: transformers 5.24.0, torch 2.13.0, CPU.
# Behaviour: `rope_parameters` of most models is one object with rope_type and rope_theta. Gemma 3 wants one object for
#   each kind of layer. Given the flat form it says nothing: it keeps the flat keys beside two complete objects of
#   defaults, and both rotary tables are those of the defaults. The same keys under the older names `rope_scaling` and
#   `rope_theta` are obeyed, in the full layers. Printing the config shows the keys that were given.
# Why it matters: a converter that writes the modern flat form, as is right for Llama, Qwen and Mistral, makes a Gemma 3
#   whose base and scaling are other ones than its config.json says; another engine that reads the keys disagrees.
# Output seen on 2026-11-27 (first step of the angle in full layers, for a head of 16 channels):
#   nothing given                     0.1778
#   rope_parameters, flat             0.1778   rope_theta in the config: 12345.0
#   rope_parameters, by kind of layer 0.0385
#   rope_theta and rope_scaling       0.0385
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$work/venv/bin/python" - "$work" <<'PY'
import json
import sys
from pathlib import Path

from transformers import AutoConfig, Gemma3ForCausalLM

sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "head_dim": 16}
sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 8, "max_position_embeddings": 512}
scaled = {"rope_type": "linear", "factor": 8.0}
full, local = scaled | {"rope_theta": 12345.0}, {"rope_type": "default", "rope_theta": 10000.0}
given = {
    "nothing given": {},
    "rope_parameters, flat": {"rope_parameters": full},
    "rope_parameters, by kind of layer": {"rope_parameters": {"full_attention": full, "sliding_attention": local}},
    "rope_theta and rope_scaling": {"rope_theta": 12345.0, "rope_scaling": scaled},
}
steps = {}
for name, keys in given.items():
    folder = Path(sys.argv[1], "model")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3_text", **sizes, **keys}))
    config = AutoConfig.from_pretrained(folder)
    table = Gemma3ForCausalLM(config).model.rotary_emb.full_attention_inv_freq
    steps[name] = round(float(table[1]), 4)
    shown = config.rope_parameters.get("rope_theta")
    print(f"{name:<33} {steps[name]:.4f}" + (f"   rope_theta in the config: {shown}" if shown else ""))
assert steps["rope_parameters, by kind of layer"] == steps["rope_theta and rope_scaling"] == 0.0385
assert steps["rope_parameters, flat"] == steps["nothing given"] == 0.1778, "the flat form is used now"
PY
