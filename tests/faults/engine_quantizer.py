"""Quantize matrices by ggml's own C function; run by an interpreter that has llama-cpp-python.

usage: python engine_quantizer.py JOBS.npz OUT.npz

JOBS holds `x|NAME` float32 (rows, columns), `type|NAME` the number of a ggml type, and `w|NAME` importances of the
columns where there are any. OUT holds NAME, uint8 (rows, bytes of a row).
"""

import ctypes as c
import importlib.util
import pathlib
import sys

import numpy as np


def library() -> c.CDLL:
    """libggml-base of the installed llama-cpp-python, without loading the rest of it."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise SystemExit("llama-cpp-python is not installed in this interpreter")
    base = c.CDLL(str(pathlib.Path(spec.origin).parent / "lib" / "libggml-base.so"))
    base.ggml_quantize_chunk.argtypes = [c.c_int, c.c_void_p, c.c_void_p, c.c_int64, c.c_int64, c.c_int64, c.c_void_p]
    base.ggml_quantize_chunk.restype = base.ggml_row_size.restype = c.c_size_t
    base.ggml_row_size.argtypes = [c.c_int, c.c_int64]
    return base


def quantize(base: c.CDLL, values: np.ndarray, type: int, importances: np.ndarray | None) -> np.ndarray:
    """Rows of a matrix in a ggml type."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    rows, columns = values.shape
    out = np.zeros((rows, base.ggml_row_size(type, columns)), np.uint8)
    weights = None if importances is None else np.ascontiguousarray(importances, dtype=np.float32)
    pointer = None if weights is None else weights.ctypes.data
    if base.ggml_quantize_chunk(type, values.ctypes.data, out.ctypes.data, 0, rows, columns, pointer) != out.size:
        raise SystemExit(f"ggml quantized {values.shape} to another size than {out.size} bytes")
    return out


def main() -> None:
    base = library()
    with np.load(sys.argv[1]) as jobs:
        names = [key.removeprefix("x|") for key in jobs.files if key.startswith("x|")]
        weights = {name: jobs[f"w|{name}"] if f"w|{name}" in jobs.files else None for name in names}
        found = {name: quantize(base, jobs[f"x|{name}"], int(jobs[f"type|{name}"]), weights[name]) for name in names}
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
