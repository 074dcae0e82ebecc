#!/usr/bin/env bash
# A `rope_scaling` in config.json takes the rotary base of `rope_parameters` away.
#
# Version: transformers 5.23.0.
# Behaviour: transformers 5 writes `rope_parameters` (with `rope_theta` inside) and still reads the older
#   `rope_scaling`. Where a file has both, a `rope_scaling` that is not empty does not join `rope_parameters`, it
#   replaces the whole object: its rope_theta is lost, and without one at the top level the base falls back to 10000.
#   Nothing is said. null and {} leave `rope_parameters` alone.
# Why it matters: guides still say "add rope_scaling to config.json to extend the context". On a config saved by
#   transformers 5 this also changes the base, here from 1000000 to 10000, and the model answers with garbage that looks
#   like a scaling problem.
# Output seen on 2026-11-27:
#   rope_parameters alone             base 1000000
#   with rope_scaling null            base 1000000
#   with rope_scaling {}              base 1000000
#   with rope_scaling linear          base 10000
#   with rope_scaling linear and base base 1000000
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0
"$work/venv/bin/python" - "$work" <<'PY'
import json, sys
from pathlib import Path
from transformers import AutoConfig

folder = Path(sys.argv[1]) / "model"
folder.mkdir()
config = {"model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1,
          "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}
linear = {"rope_type": "linear", "factor": 2.0}


def base(title, **more):
    (folder / "config.json").write_text(json.dumps(config | more))
    found = AutoConfig.from_pretrained(folder).rope_parameters["rope_theta"]
    print(f"{title:<33} base {found:.0f}")
    return found


assert base("rope_parameters alone") == 1000000
assert base("with rope_scaling null", rope_scaling=None) == 1000000
assert base("with rope_scaling {}", rope_scaling={}) == 1000000
assert base("with rope_scaling linear", rope_scaling=linear) == 10000, "the base of rope_parameters is kept now"
assert base("with rope_scaling linear and base", rope_scaling=linear | {"rope_theta": 1000000.0}) == 1000000
PY
echo "as described"
