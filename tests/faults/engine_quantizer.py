"""Quantize with the engine itself; run by an interpreter that has llama-cpp-python.

usage: python engine_quantizer.py SOURCE.gguf OUT.gguf FTYPE [--pure] [--importances IMPORTANCES.npz]

FTYPE is the number of a llama_ftype; --pure gives all matrices its type. IMPORTANCES holds float32 importances of the
columns by the name of the tensor.
"""

import argparse
import ctypes as c
import importlib.util
import pathlib

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
    import llama_cpp

    arguments = argparse.ArgumentParser()
    arguments.add_argument("source")
    arguments.add_argument("out")
    arguments.add_argument("ftype", type=int)
    arguments.add_argument("--pure", action="store_true")
    arguments.add_argument("--importances")
    given = arguments.parse_args()
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.pure, settings.nthread = given.ftype, given.pure, 1
    if given.importances:
        with np.load(given.importances) as found:
            named = [(name.encode(), np.ascontiguousarray(found[name], np.float32)) for name in found.files]
        settings.imatrix = (llama_cpp.llama_model_imatrix_data * (len(named) + 1))()  # the last one, all zero, ends it
        for place, (name, values) in enumerate(named):
            pointer = values.ctypes.data_as(c.POINTER(c.c_float))
            settings.imatrix[place] = llama_cpp.llama_model_imatrix_data(name, pointer, values.size)
    if llama_cpp.llama_model_quantize(given.source.encode(), given.out.encode(), c.byref(settings)) != 0:
        raise SystemExit(f"llama.cpp did not quantize {given.source}")


if __name__ == "__main__":
    main()
