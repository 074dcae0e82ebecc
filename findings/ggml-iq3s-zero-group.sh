#!/usr/bin/env bash
# Thirty-two zeros in a row of weights make ggml's IQ3_S quantizer destroy the rest of their block of 256.
#
# Version: llama-cpp-python 0.3.36 (llama.cpp 0c1e57098), CPU, numpy 2.4.6.
# Behaviour: `quantize_row_iq3_s_impl` (ggml-quants.c) skips a group of 32 that is all zero with `continue`, before it
#   moves the pointers to codes and signs on to the next group. So every later group of the block is stored one group too
#   early, with the ninth bits of its codes and its scale where they belong: the values of the block behind the zeros are
#   noise as large as the weights. With and without importances; without a warning. IQ3_XXS, IQ2_S, IQ2_XS and IQ4_XS,
#   which index by the number of the group, are right.
# Why it matters: pruned weights, padded widths and experts that were never used hold such runs. A file in IQ3_S, or in
#   one of the mixtures that use it for some tensors (IQ3_XS, IQ3_M, IQ3_S), is then wrong in places that its neighbours
#   in IQ3_XXS are right in, and nobody is told. A whole block of zeros is safe.
# Output seen on 2026-11-28 (cosine between weights and copy, of each group of 32; relative error of the block):
#   IQ3_S   no zeros         0.99  0.99  0.99  0.99  0.99  0.99  0.99  0.99   0.135
#   IQ3_S   zeros in group 0 0.00  0.20 -0.02  0.14  0.26 -0.04 -0.11 -0.26   1.417
#   IQ3_S   zeros in group 3 0.99  0.99  0.99  0.00  0.26 -0.04 -0.11 -0.26   1.163
#   IQ3_XXS zeros in group 0 0.00  0.99  0.99  0.98  0.99  0.98  0.98  0.99   0.177
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
TYPES = {"IQ3_S": (21, 110), "IQ3_XXS": (18, 98)}  # number, bytes of a block
importances = np.ones(256, np.float32)


def kept(values, name):
    """One block, quantized and dequantized."""
    number, length = TYPES[name]
    stored, out = np.zeros(length, np.uint8), np.zeros(256, np.float32)
    base.ggml_quantize_chunk(number, values.ctypes.data, stored.ctypes.data, 0, 1, 256, importances.ctypes.data)
    function = getattr(base, f"dequantize_row_{name.lower()}")
    function.argtypes = [pointer, pointer, size]
    function(stored.ctypes.data, out.ctypes.data, 256)
    return out


def looked_at(name, zeros):
    """Cosine of every group, and the relative error of the block."""
    values = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    if zeros is not None:
        values[32 * zeros : 32 * zeros + 32] = 0
    copy = kept(values, name)
    x, y = values.reshape(8, 32).astype(np.float64), copy.reshape(8, 32).astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosines = (x * y).sum(axis=1) / np.where(norms > 0, norms, 1)
    error = np.linalg.norm(x - y) / np.linalg.norm(x)
    what = "no zeros" if zeros is None else f"zeros in group {zeros}"
    print(f"{name:<7} {what:<16}", " ".join(f"{cosine:5.2f}" for cosine in cosines), f"  {error:.3f}")
    return cosines, error


assert looked_at("IQ3_S", None)[1] < 0.2
for zeros in (0, 3):
    cosines, error = looked_at("IQ3_S", zeros)
    assert (cosines[:zeros] > 0.9).all()
    assert (np.abs(cosines[zeros + 1 :]) < 0.5).all()
    assert error > 1
assert looked_at("IQ3_XXS", 0)[1] < 0.2
PY
echo "as described"
