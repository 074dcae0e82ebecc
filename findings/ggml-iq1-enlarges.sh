#!/usr/bin/env bash
# ggml's IQ1 quantizers make weights larger that their codes could hold exactly, and get ternary weights wrong.
#
# Version: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), CPU, numpy 2.4.6.
# Behaviour: `quantize_row_iq1_s_impl` and `iq1_m_impl` (ggml-quants.c) fit the scale of a block of 256 and then store it
#   times 1.125 and 1.1125; IQ3_S stores 1.033 times what it has fitted. So a row whose values are all equal, which these
#   codes hold with an error of 2e-4 up to a factor, comes out 12.5 % (11.25 %) too large, and Gaussian weights 6 to 7 % too
#   large in their standard deviation, where Q2_K and IQ4_XS leave it within 1 %. Ternary weights, -s, 0 and s,
#   are off by 0.36 to 0.38 in IQ1, whose codes are called ternary: a group's codes are of a grid of 2048 points, and
#   shifted by an eighth. Q2_K, TQ2_0 and even Q4_0 hold them to 2e-4.
# Why it matters: a ratio of standard deviations of 1.06, or a matrix that is another one times 1.12, is what a mistaken
#   scale looks like; of IQ1 copies it is what the quantizer does. Who has a model with weights of three values should take
#   TQ2_0 or Q2_K for it, not the types that say 1.5 bits.
# Output seen on 2026-11-28 (ratio of standard deviations, least-squares factor, relative error; equal importances):
#   one value a row  IQ1_S 1.125 1.125 0.125   IQ1_M 1.112 1.112 0.112   Q2_K 1.000 1.000 0.000   TQ2_0 1.000 1.000 0.000
#   Gaussian         IQ1_S 1.070 0.953 0.487   IQ1_M 1.060 0.958 0.454   Q2_K 0.993 0.957 0.268   TQ2_0 1.074 0.749 0.809
#   three values     IQ1_S 1.081 1.012 0.379   IQ1_M 1.060 0.996 0.363   Q2_K 1.000 1.000 0.000   TQ2_0 1.000 1.000 0.000
# The script fails if this changes. Building the package takes minutes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 llama-cpp-python==0.3.36
"$work/venv/bin/python" - <<'PY'
import ctypes
from importlib.util import find_spec
from pathlib import Path

import numpy as np

base = ctypes.CDLL(str(Path(find_spec("llama_cpp").origin).parent / "lib" / "libggml-base.so"))
pointer, size = ctypes.c_void_p, ctypes.c_int64
base.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
base.ggml_quantize_chunk.restype = ctypes.c_size_t
# number of the type, bytes of 256 values, name of the routine
TYPES = {"IQ1_S": (19, 50, "iq1_s"), "IQ1_M": (29, 56, "iq1_m"), "Q2_K": (10, 84, "q2_K"), "TQ2_0": (35, 66, "tq2_0")}
ROWS, COLUMNS = 64, 1024
importances = np.ones(COLUMNS, np.float32)


def copy(values, name):
    """Quantized and dequantized."""
    number, block, routine = TYPES[name]
    packed, back = np.zeros((ROWS, COLUMNS // 256 * block), np.uint8), np.empty_like(values)
    base.ggml_quantize_chunk(
        number, values.ctypes.data, packed.ctypes.data, 0, ROWS, COLUMNS, importances.ctypes.data
    )
    dequantize = getattr(base, f"dequantize_row_{routine}")
    dequantize.argtypes = [pointer, pointer, size]
    dequantize(packed.ctypes.data, back.ctypes.data, values.size)
    return back


rng = np.random.default_rng(0)
WEIGHTS = {
    "one value a row": np.repeat(rng.standard_normal((ROWS, 1)), COLUMNS, axis=1),
    "Gaussian": rng.standard_normal((ROWS, COLUMNS)),
    "three values": rng.integers(-1, 2, (ROWS, COLUMNS)),
}
found = {}
for words, drawn in WEIGHTS.items():
    values = np.ascontiguousarray(0.02 * drawn, np.float32)
    source = values.astype(np.float64)
    line = f"{words:16}"
    for name in TYPES:
        made = copy(values, name).astype(np.float64)
        ratio, factor = made.std() / source.std(), (source * made).sum() / np.square(source).sum()
        error = np.linalg.norm(made - source) / np.linalg.norm(source)
        found[words, name] = ratio, factor, error
        line += f" {name} {ratio:.3f} {factor:.3f} {error:.3f}  "
    print(line)

assert abs(found["one value a row", "IQ1_S"][1] - 1.125) < 1e-3
assert abs(found["one value a row", "IQ1_M"][1] - 1.1125) < 1e-3
assert found["one value a row", "Q2_K"][2] < 1e-3
assert all(found["Gaussian", name][0] > 1.05 for name in ("IQ1_S", "IQ1_M"))
assert abs(found["Gaussian", "Q2_K"][0] - 1) < 0.01
assert all(found["three values", name][2] > 0.3 for name in ("IQ1_S", "IQ1_M"))
assert all(found["three values", name][2] < 1e-3 for name in ("Q2_K", "TQ2_0"))
PY
echo "as described"
