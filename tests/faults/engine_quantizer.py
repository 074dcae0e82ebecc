"""Quantize with the engine itself; run by an interpreter that has llama-cpp-python.

Reads jobs, one JSON object a line, and answers each with a line: empty, or why there is no file. Of a model `source`
and `out` are GGUF files, `ftype` the number of a llama_ftype; `pure` gives all matrices its type. `importances` is null
or the path of an npz with float32 importances of the columns by the name of the tensor. Of a single matrix `matrix` and
`out` are npy files, float32 and rows, `type` the number of a ggml_type, and all columns have the same importance.
"""

import ctypes as c
import importlib.util
import json
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


def quantize_model(source: str, out: str, ftype: int, pure: bool, importances: str | None) -> int:
    """One job; 0 if there is a file now."""
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.pure, settings.nthread = ftype, pure, 1
    if importances:
        with np.load(importances) as found:
            named = [(name.encode(), np.ascontiguousarray(found[name], np.float32)) for name in found.files]
        settings.imatrix = (llama_cpp.llama_model_imatrix_data * (len(named) + 1))()  # the last one, all zero, ends it
        for place, (name, values) in enumerate(named):
            pointer = values.ctypes.data_as(c.POINTER(c.c_float))
            settings.imatrix[place] = llama_cpp.llama_model_imatrix_data(name, pointer, values.size)
    return int(llama_cpp.llama_model_quantize(source.encode(), out.encode(), c.byref(settings)))


def quantize_matrix(base: c.CDLL, matrix: str, out: str, type: int) -> None:
    """One job."""
    values = np.load(matrix)
    np.save(out, quantize(base, values, type, np.ones(values.shape[1])))


def main() -> None:
    base = library()
    for line in sys.stdin:
        job, failed = json.loads(line), 0
        if "matrix" in job:
            quantize_matrix(base, **job)
        else:
            failed = quantize_model(**job)
        sys.stdout.write(f"llama.cpp did not quantize {job['source']}\n" if failed else "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
