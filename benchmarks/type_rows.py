"""Every weight type on one thread beside ggml's C functions: stored rows to floats, and a product with a few tokens.

All in seconds of the processor, the least of many turns: that can be measured where others are at work too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.limits import Work
from benchmarks.peer import Peer
from benchmarks.rows import Bench, Measured, Row, alternate, threads
from kernels.matmul.ggml import matmul_ggml
from kernels.rows.dequantize import dequantize_rows
from kernels.weight import TensorType, Weight, row_bytes
from tests.random_weights import random_rows

_FUNCTIONS = {
    TensorType.F16: "ggml_fp16_to_fp32_row",
    TensorType.BF16: "ggml_bf16_to_fp32_row",
    **{
        type: f"dequantize_row_{type.name.lower().replace('_k', '_K')}"
        for type in TensorType
        if type.block.elements > 1
    },
}
_COLUMNS, _ROWS_OF_A_CALL, _TOKENS = 4096, 64, 7
_TURNS = 3  # for one of other rows
_PEER = "C library, 1 thread"


def rows() -> list[Row]:
    """Two rows for every type that ggml has; those whose codes are points of a grid may take longer."""
    found = []
    for type in _FUNCTIONS:
        must = 1.3 if type.name.startswith("IQ") else 1.0
        product = f"product with {type.name}, {_TOKENS} tokens"
        found += [
            Row(f"types-dequantize-{type.name}", f"dequantize {type.name}", _PEER, must, 1.0, _dequantizing(type)),
            Row(f"types-product-{type.name}", product, _PEER, must, 1.0, _multiplying(type)),
        ]
    return found


@contextmanager
def _stored(bench: Bench, type: TensorType, count: int) -> Iterator[tuple[NDArray[np.uint8], Path]]:
    """Random rows of a type, and the file of them for as long as the peer needs it."""
    raw = random_rows(np.random.default_rng(0), type, count, _COLUMNS)
    bench.models.folder.mkdir(parents=True, exist_ok=True)
    file = bench.models.folder / f"rows-{type.name}.bin"
    raw.tofile(file)
    try:
        yield raw, file
    finally:
        file.unlink()


def _dequantizing(type: TensorType) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        count = 1024 if bench.quick else 16384
        size = {"bytes": _ROWS_OF_A_CALL * row_bytes(type, _COLUMNS), "values": _ROWS_OF_A_CALL * _COLUMNS}
        with _stored(bench, type, count) as (raw, file):

            def product() -> None:
                for start in range(0, count, _ROWS_OF_A_CALL):
                    dequantize_rows(type, raw[start : start + _ROWS_OF_A_CALL], _COLUMNS)

            job = {"file": str(file), "function": _FUNCTIONS[type], **size}
            with Peer(bench.peer_python, "ggml_dequantize", 1, **job) as peer:
                work = Work(1, raw.nbytes)  # what it makes stays in the cache
                return _alternate(bench, product, peer, work)

    return measure


def _multiplying(type: TensorType) -> Callable[[Bench], Measured]:
    def measure(bench: Bench) -> Measured:
        count = 1024 if bench.quick else 8192
        x = np.random.default_rng(1).standard_normal((_TOKENS, _COLUMNS), np.float32)
        with _stored(bench, type, count) as (raw, file), threads(1):
            weight = Weight("w", type, (count, _COLUMNS), raw)
            job = {"file": str(file), "type": int(type), "rows": count, "columns": _COLUMNS, "tokens": _TOKENS}
            with Peer(bench.peer_python, "ggml_product", 1, **job) as peer:
                work = Work(1, raw.nbytes, 2.0 * count * x.size, "f32" if type.block.elements == 1 else "int8")
                return _alternate(bench, lambda: matmul_ggml(x, weight), peer, work)

    return measure


def _alternate(bench: Bench, product: Callable[[], object], peer: Peer, work: Work) -> Measured:
    return alternate(product, peer.run, _TURNS * bench.rounds, work=work, processor=True)
