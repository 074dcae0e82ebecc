#!/usr/bin/env bash
# One weight near zero in a channel of large importance makes ggml's IQ2 and IQ3 quantizers shrink its whole group.
#
# Version: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), CPU, numpy 2.4.6.
# Behaviour: no code of IQ2 and IQ3 is 0. A weight that is nearly 0 gets the smallest one, and the weighted least-squares
#   scale of its group (16 or 32 values) is then what this one value asks for, if its importance is large: with 100 times
#   the importance of the others IQ2_XS keeps 0.57 of the size of the other 15 weights, with 1000 times 0.18, with 10,000
#   times 0.05; where the sign that is not stored had to change at this weight the scale becomes negative, and the group
#   comes out small and with all signs reversed. The rest of the block is as ever. Types with a code for 0 (Q2_K, Q3_K, Q4_K)
#   or with steps beside it (IQ4_XS) keep 0.97 to 0.99 whatever the importances.
# Why it matters: importance matrices hold mean squares of activations, and of channels with massive activations these are
#   100 to 10,000 times the others. The more the matrix says of such a channel, the more of the weights beside it are lost
#   wherever the channel's own weight is small; an error that is weighted by the same matrix does not show it.
# Output seen on 2026-11-28 (size of the group along its source, one weight of 0.003 among Gaussian ones; importance of its
# channel 1, 100, 1000 and 10,000 times that of the others):
#   IQ2_XXS 1.029 0.704 0.296 0.057      IQ3_XXS 1.020 0.981 0.645 0.181      Q2_K   0.967 0.971 0.979 0.979
#   IQ2_XS  0.959 0.572 0.184 0.046      IQ3_S   1.061 0.936 0.746 0.187      Q3_K   0.975 0.976 0.979 0.980
#   IQ2_S   0.966 0.526 0.165 0.054      IQ4_XS  0.990 0.990 0.990 0.984      Q4_K   1.007 0.988 0.992 0.992
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
# number of the type, bytes of 256 values
GRIDS = {"iq2_xxs": (16, 66), "iq2_xs": (17, 74), "iq2_s": (22, 82), "iq3_xxs": (18, 98), "iq3_s": (21, 110)}
OTHERS = {"iq4_xs": (23, 136), "q2_K": (10, 84), "q3_K": (11, 110), "q4_K": (12, 144)}
TYPES, IMPORTANT, GROUP = GRIDS | OTHERS, 5, slice(0, 16)


def copy(values, name, ratio):
    """One block, quantized with one channel of so many times the importance of the others, and dequantized."""
    number, length = TYPES[name]
    importances = np.where(np.arange(256) == IMPORTANT, ratio, 1).astype(np.float32)
    packed, back = np.zeros(length, np.uint8), np.empty_like(values)
    base.ggml_quantize_chunk(number, values.ctypes.data, packed.ctypes.data, 0, 1, 256, importances.ctypes.data)
    dequantize = getattr(base, f"dequantize_row_{name}")
    dequantize.argtypes = [pointer, pointer, size]
    dequantize(packed.ctypes.data, back.ctypes.data, 256)
    return back


values = np.random.default_rng(0).standard_normal(256).astype(np.float32)
values[IMPORTANT] = 0.003
for name in TYPES:
    copies = [copy(values, name, ratio)[GROUP] for ratio in (1, 100, 1000, 10_000)]
    kept = [float(made @ values[GROUP] / (values[GROUP] @ values[GROUP])) for made in copies]
    print(f"{name:8}", *(f"{share:.3f}" for share in kept))
    assert kept[0] > 0.9
    assert kept[3] < 0.25 if name in GRIDS else min(kept) > 0.95
PY
echo "as described"
