"""Record what ggml's other routines answer, for tests/unit/test_ggml_routines.py: rearranged weights, and tiles.

usage: python tests/golden/record_ggml_routines.py AVX2 AVX512 (folders of libggml-base.so and libggml-cpu.so, built
from what llama-cpp-python 0.3.36 contains, without and with AVX-512; only digests of the second are kept)
"""

import ctypes as c
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from kernels.weight import TensorType, Weight  # noqa: E402
from tests.random_weights import digest, random_weight, tied_activations  # noqa: E402

REPACKED = {"avx2": ("Q4_0", "IQ4_NL", "MXFP4", "Q4_K"), "avx512": ("Q4_0", "IQ4_NL", "MXFP4", "Q4_K", "Q2_K")}
TILED = [type.name for type in TensorType if getattr(type.format, "tiled", False)]
ROWS, COLUMNS, TOKENS = 16, 768, 11
_BUFFERS = "_Z35ggml_backend_cpu_repack_buffer_typev"
P = c.c_void_p


class Memory(c.Structure):
    """`ggml_init_params`."""

    _fields_ = (("size", c.c_size_t), ("buffer", c.c_void_p), ("no_alloc", c.c_bool))


class Ggml:
    """The two libraries of a folder."""

    def __init__(self, folder: str) -> None:
        self.base = c.CDLL(f"{folder}/libggml-base.so", mode=c.RTLD_GLOBAL)
        self.cpu = c.CDLL(f"{folder}/libggml-cpu.so")
        self.cpu.ggml_cpu_init()
        names = "ggml_init ggml_new_tensor_2d ggml_mul_mat ggml_get_data ggml_new_graph ggml_backend_buft_alloc_buffer"
        for name in f"{names} ggml_backend_buffer_get_base".split():
            getattr(self.base, name).restype = P
        self.base.ggml_nbytes.restype = c.c_size_t
        getattr(self.cpu, _BUFFERS).restype = P

    def product(self, weight: Weight, x: np.ndarray, repack: bool) -> np.ndarray:
        """x @ weight.T as a graph of one `ggml_mul_mat` computes it."""
        base, size = self.base, c.c_int64(x.shape[1])
        place, outside = (P(base.ggml_init(Memory(1 << 24, None, own))) for own in (False, True))
        rows, x = np.ascontiguousarray(weight.rows[:]), np.ascontiguousarray(x)
        stored = P(base.ggml_new_tensor_2d(outside if repack else place, int(weight.type), size, c.c_int64(len(rows))))
        if repack:
            kind = P(getattr(self.cpu, _BUFFERS)())
            buffer = P(base.ggml_backend_buft_alloc_buffer(kind, c.c_size_t(base.ggml_nbytes(stored))))
            base.ggml_backend_tensor_alloc(buffer, stored, P(base.ggml_backend_buffer_get_base(buffer)))
            base.ggml_backend_tensor_set(stored, P(rows.ctypes.data), c.c_size_t(0), c.c_size_t(rows.nbytes))
        else:
            c.memmove(base.ggml_get_data(stored), rows.ctypes.data, rows.nbytes)
        read = P(base.ggml_new_tensor_2d(place, int(TensorType.F32), size, c.c_int64(len(x))))
        c.memmove(base.ggml_get_data(read), x.ctypes.data, x.nbytes)
        result, graph = P(base.ggml_mul_mat(place, stored, read)), P(base.ggml_new_graph(place))
        base.ggml_build_forward_expand(graph, result)
        self.cpu.ggml_graph_compute_with_ctx(place, graph, 1)
        out = np.empty((len(x), len(rows)), np.float32)
        c.memmove(out.ctypes.data, base.ggml_get_data(result), out.nbytes)
        return out


def answers(folder: str, build: str) -> dict[str, np.ndarray]:
    """Products by type and routine."""
    ggml, x = Ggml(folder), tied_activations(TOKENS, COLUMNS)
    found = {}
    for names, repack, routine in ((REPACKED[build], True, "repacked"), (TILED, False, "tiled")):
        for type in map(TensorType.__getitem__, names):
            weight = random_weight(int(type), type, ROWS, COLUMNS)
            found[f"{type.name} {routine}"] = ggml.product(weight, x, repack)
    return found


if len(sys.argv) == 2:  # libraries of two builds cannot be in one process
    build, folder = sys.argv[1].split("=", 1)
    np.savez_compressed(sys.stdout.buffer, **answers(folder, build))
else:
    import io
    import subprocess

    kept: dict[str, object] = {}
    for build, folder in zip(("avx2", "avx512"), sys.argv[1:], strict=True):
        made = subprocess.run([sys.executable, __file__, f"{build}={folder}"], stdout=subprocess.PIPE, check=True)
        with np.load(io.BytesIO(made.stdout)) as arrays:
            kept |= {f"{build} {key}": arrays[key] if build == "avx2" else digest(arrays[key]) for key in arrays}
    np.savez_compressed(ROOT / "tests/golden/ggml-routines.npz", **kept)
