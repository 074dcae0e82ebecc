#!/usr/bin/env bash
# Q6_K does not keep ternary weights: +s and -s come back with different magnitudes.
#
# Version: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), CPU, numpy 2.4.6.
# Behaviour: weights that are only -s, 0 and +s (as of a 1.58-bit model) would fit exactly into Q6_K, whose 64 codes run
#   from -32 to 31. The quantizer takes the value of largest magnitude for code -32; its opposite would be +32, which
#   does not exist, so it becomes 31 of 32, and the search for a better scale trades one error for the other. The two
#   magnitudes differ by 0.78 % in every block, and which sign is the smaller one changes from block to block. Q8_0
#   keeps all three values to within the half-precision rounding of its scale.
# Why it matters: on such a model a "6.5 bits per weight" copy is systematically wrong where a 2-bit ternary type would
#   be exact, and a check that fits one factor between source and copy reports a scale of 0.99 to 1.00 that nobody set.
# Output seen on 2026-11-27:
#   s = 1        Q6_K gives 0.99216, 0.99997 of s   Q8_0 gives 0.99994 of s
#   s = 0.02     Q6_K gives 0.99732, 1.00517 of s   Q8_0 gives 0.99997 of s
#   s = 0.0371   Q6_K gives 0.99305, 1.00087 of s   Q8_0 gives 0.99978 of s
# The script fails if this changes. Building the package takes minutes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 llama-cpp-python==0.3.36
"$work/venv/bin/python" - <<'PY'
import ctypes
from pathlib import Path
import llama_cpp, numpy as np

base = ctypes.CDLL(str(next((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base*"))))
count, pointer = ctypes.c_int64, ctypes.c_void_p
base.ggml_quantize_chunk.restype = ctypes.c_size_t
base.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
VALUES = 4096


def kept(s, type, bytes_of_block, values_of_block, dequantize):
    """What becomes of +s and -s, in units of them."""
    x = (np.random.default_rng(0).integers(-1, 2, VALUES) * s).astype(np.float32)
    packed, y = np.zeros(VALUES // values_of_block * bytes_of_block, np.uint8), np.zeros(VALUES, np.float32)
    base.ggml_quantize_chunk(type, x.ctypes.data, packed.ctypes.data, 0, 1, VALUES, None)
    getattr(base, dequantize)(pointer(packed.ctypes.data), pointer(y.ctypes.data), count(VALUES))
    return np.unique((y[x != 0] / x[x != 0]).round(5))


for s in (1.0, 0.02, 0.0371):
    six, eight = kept(s, 14, 210, 256, "dequantize_row_q6_K"), kept(s, 8, 34, 32, "dequantize_row_q8_0")
    print(f"s = {s:<8g} Q6_K gives {', '.join(f'{v:.5f}' for v in six)} of s   Q8_0 gives {', '.join(f'{v:.5f}' for v in eight)} of s")
    assert len(six) == 2 and 0.007 < six[1] / six[0] - 1 < 0.009, "Q6_K keeps ternary weights now"
    assert len(eight) == 1 and abs(eight[0] - 1) < 5e-4
PY
echo "as described"
