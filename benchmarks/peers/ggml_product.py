"""ggml's own product of stored rows with a few tokens, as a graph of one `ggml_mul_mat`, one thread.

Job: number of the type, file of stored rows, rows, columns and tokens.
"""

import ctypes as c
import time
from pathlib import Path

import llama_cpp
import numpy as np

from benchmarks.peers.serving import job, serve

_ROOM = 1 << 26  # bytes for graph and output, and for the scratch memory that every run takes anew and never gives back
_F32 = 0  # its number in ggml


class Memory(c.Structure):
    """`ggml_init_params`."""

    _fields_ = (("size", c.c_size_t), ("buffer", c.c_void_p), ("no_alloc", c.c_bool))


def main() -> None:
    """Compute the product as often as asked; seconds are those of the processor."""
    wanted, pointer = job(), c.c_void_p
    folder = Path(llama_cpp.__file__).parent / "lib"
    base = c.CDLL(str(folder / "libggml-base.so"), mode=c.RTLD_GLOBAL)
    cpu = c.CDLL(str(folder / "libggml-cpu.so"))
    for name in ("ggml_init", "ggml_new_tensor_2d", "ggml_mul_mat", "ggml_get_data", "ggml_new_graph"):
        getattr(base, name).restype = pointer
    cpu.ggml_cpu_init()
    raw = np.fromfile(wanted["file"], np.uint8)
    x = np.random.default_rng(1).standard_normal((wanted["tokens"], wanted["columns"]), np.float32)
    place = pointer(base.ggml_init(Memory(raw.nbytes + _ROOM, None, False)))
    tensors = []
    for type, count, values in ((wanted["type"], wanted["rows"], raw), (_F32, wanted["tokens"], x)):
        sizes = c.c_int64(wanted["columns"]), c.c_int64(count)
        tensors.append(pointer(base.ggml_new_tensor_2d(place, type, *sizes)))
        c.memmove(base.ggml_get_data(tensors[-1]), values.ctypes.data, values.nbytes)
    graph = pointer(base.ggml_new_graph(place))
    base.ggml_build_forward_expand(graph, pointer(base.ggml_mul_mat(place, *tensors)))

    def run() -> float:
        start = time.process_time()
        if cpu.ggml_graph_compute_with_ctx(place, graph, 1):
            raise SystemExit("ggml did not compute the product")
        return time.process_time() - start

    serve(run)


if __name__ == "__main__":
    main()
