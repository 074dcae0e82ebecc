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

from kernels.weight import TensorType  # noqa: E402
from tests.random_weights import random_activations, random_weight  # noqa: E402

TYPES = [type for type in TensorType if type.block.elements > 1]
ROWS, COLUMNS, TOKENS = 24, 768, 4


def main() -> None:
    import llama_cpp

    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    c.CDLL(str(folder / "libggml-base.so"), mode=c.RTLD_GLOBAL)
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
        kind = type.format.activations.removeprefix("ggml ").replace("Q", "q")
        function = getattr(cpu, f"ggml_vec_dot_{type.name.lower().replace('_k', '_K')}_{kind}")
        size, pointer = c.c_size_t, c.c_void_p
        function.argtypes = [c.c_int, pointer, size, pointer, size, pointer, size, c.c_int]
        weight, out = random_weight(int(type), type, ROWS, COLUMNS), np.zeros((TOKENS, ROWS), np.float32)
        for t in range(TOKENS):
            for r in range(ROWS):
                result = c.c_float()
                function(
                    COLUMNS, c.addressof(result), 0, weight.rows[r].ctypes.data, 0, answers[kind][t].ctypes.data, 0, 1
                )
                out[t, r] = result.value
        answers[type.name] = out
    np.savez_compressed(ROOT / "tests/golden/ggml-dots.npz", **answers)


main()
