#!/usr/bin/env bash
# For small weights Q8_0 keeps less than Q4_0: below 1e-5 it is the worse of the two, near 1e-6 it stores zeros.
#
# Version: gguf 0.19.0 (its own quantizer, which states to match ggml's reference for Q8_0), numpy 2.4.6.
# Behaviour: both types keep one half-precision scale per 32 weights. Q8_0's is the largest magnitude divided by 127,
#   Q4_0's is it divided by 8, so with the same weights Q8_0's is sixteen times nearer to where half precision runs out
#   (steps of 6e-8). The codes are made with the exact scale and are not made again after it has been rounded: the whole
#   block is stretched or shrunk by one factor. Nothing is raised and nothing is logged. At 1e-3 and above, all is well.
# Why it matters: "8 bits are as good as the original" does not hold for adapters (the B matrix of a LoRA starts at
#   zero) or for rows that weight decay has shrunk. There a copy of 5.5 bits (Q5_0) is nearer to the source than one of
#   8.5, and a check that expects about 0.5 % of error of Q8_0 everywhere blames whoever made the copy.
# Output seen on 2026-11-27 (error relative to the norm of the weights, normal distribution):
#   deviation 0.02     Q8_0 0.005 ( 1 % zeros)   Q5_0 0.043 ( 6 % zeros)   Q4_0 0.086 (12 % zeros)
#   deviation 0.0001   Q8_0 0.011 ( 1 % zeros)   Q5_0 0.043 ( 6 % zeros)   Q4_0 0.086 (12 % zeros)
#   deviation 1e-05    Q8_0 0.095 ( 1 % zeros)   Q5_0 0.044 ( 6 % zeros)   Q4_0 0.086 (12 % zeros)
#   deviation 5e-06    Q8_0 0.215 ( 1 % zeros)   Q5_0 0.049 ( 6 % zeros)   Q4_0 0.087 (12 % zeros)
#   deviation 1e-06    Q8_0 0.999 (99 % zeros)   Q5_0 0.125 ( 6 % zeros)   Q4_0 0.105 (12 % zeros)
# The script fails if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 gguf==0.19.0
"$work/venv/bin/python" - <<'PY'
import gguf, numpy as np

TYPES = ("Q8_0", "Q5_0", "Q4_0")
weights = np.random.default_rng(0).standard_normal((64, 4096))


def kept(x, name):
    """Error relative to the norm of x, and the part of the values that are zero afterwards."""
    type = gguf.GGMLQuantizationType[name]
    y = gguf.dequantize(gguf.quantize(x, type), type).astype(np.float64)
    return float(np.linalg.norm(y - x) / np.linalg.norm(x.astype(np.float64))), float((y == 0).mean())


seen = {}
for deviation in (2e-2, 1e-4, 1e-5, 5e-6, 1e-6):
    seen[deviation] = {name: kept((weights * deviation).astype(np.float32), name) for name in TYPES}
    figures = (f"{name} {off:.3f} ({zeros:3.0%} zeros)" for name, (off, zeros) in seen[deviation].items())
    print(f"deviation {deviation:<8g} {'   '.join(figures).replace('%', ' %')}")
error = lambda deviation, name: seen[deviation][name][0]
assert error(2e-2, "Q8_0") < 0.01 < 0.08 < error(2e-2, "Q4_0"), "weights of a usual size are kept differently now"
assert error(1e-5, "Q8_0") > error(1e-5, "Q4_0") > error(1e-5, "Q5_0"), "Q8_0 is better than Q4_0 at 1e-5 now"
assert error(5e-6, "Q8_0") > 2 * error(5e-6, "Q4_0"), "Q8_0 is better at 5e-6 now"
assert seen[1e-6]["Q8_0"][1] > 0.95 and error(1e-6, "Q4_0") < 0.12, "Q8_0 no longer stores zeros at 1e-6"
PY
echo "as described"
