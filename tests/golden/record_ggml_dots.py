"""Record what ggml's own C functions answer, for tests/unit/test_ggml_arithmetic.py.

Needs llama-cpp-python 0.3.36 built for an AVX2 machine, in an environment of its own:
    python tests/golden/record_ggml_dots.py
"""

import ctypes as c
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from kernels.weight import TensorType, Weight  # noqa: E402
from tests.random_weights import (  # noqa: E402
    digest,
    extreme_blocks,
    odd_columns,
    random_activations,
    random_weight,
)

TYPES = [type for type in TensorType if type.block.elements > 1]
ROWS, COLUMNS, TOKENS = 24, 768, 4


class Memory(c.Structure):
    """`ggml_init_params`."""

    _fields_ = (("size", c.c_size_t), ("buffer", c.c_void_p), ("no_alloc", c.c_bool))


def product(base: c.CDLL, cpu: c.CDLL, weight: Weight, x: np.ndarray) -> np.ndarray:
    """x @ weight.T as a graph of one `ggml_mul_mat` computes it: with the routine that ggml chooses itself."""
    returning_pointers = "ggml_init ggml_new_tensor_2d ggml_mul_mat ggml_get_data ggml_new_graph"
    for name in returning_pointers.split():
        getattr(base, name).restype = c.c_void_p
    place = base.ggml_init(Memory(1 << 24, None, False))
    tensors, pointer = [], c.c_void_p
    for type, values in ((int(weight.type), weight.rows), (int(TensorType.F32), np.ascontiguousarray(x))):
        sizes = c.c_int64(x.shape[1]), c.c_int64(len(values))
        tensors.append(base.ggml_new_tensor_2d(pointer(place), type, *sizes))
        c.memmove(base.ggml_get_data(pointer(tensors[-1])), values.ctypes.data, values.nbytes)
    result = base.ggml_mul_mat(pointer(place), *map(pointer, tensors))
    graph = base.ggml_new_graph(pointer(place))
    base.ggml_build_forward_expand(pointer(graph), pointer(result))
    cpu.ggml_graph_compute_with_ctx(pointer(place), pointer(graph), 1)
    out = np.empty((len(x), len(weight.rows)), np.float32)
    c.memmove(out.ctypes.data, base.ggml_get_data(pointer(result)), out.nbytes)
    base.ggml_free(pointer(place))
    return out


def dequantized(base: c.CDLL, type: TensorType, blocks: np.ndarray) -> np.ndarray:
    """Blocks as `dequantize_row_*` has them, float32 (blocks, elements)."""
    function = getattr(base, f"dequantize_row_{type.name.lower().replace('_k', '_K')}")
    function.argtypes = [c.c_void_p, c.c_void_p, c.c_int64]
    out = np.empty((len(blocks), type.block.elements), np.float32)
    function(blocks.ctypes.data, out.ctypes.data, out.size)
    return out


def main() -> None:
    import llama_cpp

    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    base = c.CDLL(str(folder / "libggml-base.so"), mode=c.RTLD_GLOBAL)
    cpu = c.CDLL(str(folder / "libggml-cpu.so"))
    cpu.ggml_cpu_init()
    x, answers = random_activations(7, TOKENS, COLUMNS), {}
    for kind, size in (("q8_K", COLUMNS // 256 * 292), ("q8_0", COLUMNS // 32 * 34), ("q8_1", COLUMNS // 32 * 36)):
        quantized = np.zeros((TOKENS, size), np.uint8)
        function = getattr(cpu, f"quantize_row_{kind}")
        function.argtypes = [c.c_void_p, c.c_void_p, c.c_int64]
        for source, target in zip(x, quantized, strict=True):
            function(source.ctypes.data, target.ctypes.data, COLUMNS)
        answers[kind] = quantized
    for type in TYPES:
        answers[type.name] = product(base, cpu, random_weight(int(type), type, ROWS, COLUMNS), x)
        odd = odd_columns(type)
        answers[f"{type.name} odd"] = product(base, cpu, random_weight(int(type), type, ROWS, odd), x[:, :odd])
        answers[f"{type.name} values"] = digest(dequantized(base, type, extreme_blocks(type)))
    np.savez_compressed(ROOT / "tests/golden/ggml-dots.npz", **answers)


main()
