"""ggml's own C functions that turn stored rows into float32, one thread.

Job: library function, file of stored rows, bytes and values of a call.
"""

import ctypes
import time
from pathlib import Path

import llama_cpp
import numpy as np

from benchmarks.peers.serving import job, serve


def main() -> None:
    """Dequantize the file as often as asked, a few rows at a time into fresh memory; seconds of the processor."""
    wanted = job()
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
    dequantize = getattr(library, wanted["function"])
    dequantize.restype, dequantize.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    raw, step, values = np.fromfile(wanted["file"], np.uint8), wanted["bytes"], wanted["values"]

    def run() -> float:
        start = time.process_time()
        for at in range(0, raw.size, step):
            out = np.empty(values, np.float32)
            dequantize(raw[at:].ctypes.data, out.ctypes.data, values)
        return time.process_time() - start

    serve(run)


if __name__ == "__main__":
    main()
