#!/usr/bin/env bash
# model.to(torch.bfloat16) is another model than from_pretrained(dtype=torch.bfloat16).
#
# Version: transformers 5.23.0, torch 2.13.0, CPU.
# Behaviour: from_pretrained(dtype=...) leaves the rotary frequencies (`inv_freq`, a buffer that is not saved) in
#   float32; .to(torch.bfloat16) and .bfloat16() cast them as well. The angles are then computed in float32 from
#   frequencies that have 8 bits, so the error grows with the position: with a head of 64 channels and base 10000 some
#   pair is turned 50 degrees too far or not far enough after 2,000 tokens. Weights are the same.
# Why it matters: a port, a test or a "reference run in bfloat16" that loads in float32 and casts is healthy on a short
#   prompt and wrong on a long one. Nothing in the weights, the config or the dtype of the parameters shows it.
# Output seen on 2026-11-27:
#   from_pretrained(dtype=bfloat16)  inv_freq torch.float32   worst angle at position 2000 off by 0.00 rad
#   .to(bfloat16)                    inv_freq torch.bfloat16  worst angle at position 2000 off by 0.87 rad
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
"$work/venv/bin/python" - "$work" <<'PY'
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM, logging

logging.disable_progress_bar()
folder = f"{sys.argv[1]}/model"
sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=1, num_key_value_heads=1)).save_pretrained(folder)
right = 10000.0 ** -(torch.arange(0, 64, 2, dtype=torch.float64) / 64)
loaded = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
cast = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(torch.bfloat16)
assert all(torch.equal(x, y) for x, y in zip(loaded.parameters(), cast.parameters())), "the weights differ"
off = {}
for name, model in (("from_pretrained(dtype=bfloat16)", loaded), (".to(bfloat16)", cast)):
    frequencies = model.model.rotary_emb.inv_freq
    off[name] = float((2000 * (frequencies.double() - right)).abs().max())
    print(f"{name:<32} inv_freq {str(frequencies.dtype):<15} worst angle at position 2000 off by {off[name]:.2f} rad")
assert off["from_pretrained(dtype=bfloat16)"] < 0.01
assert off[".to(bfloat16)"] > 0.5, "a cast no longer rounds the rotary frequencies"
PY
echo "as described"
