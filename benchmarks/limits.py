"""What this machine can do at most, measured on the spot: bytes read from memory, and operations, in a second."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.machine.parallel import over_rows
from kernels.machine.vectors import F32, I8, I32, Vectors, array_intrinsic
from kernels.matmul.byte_products import HOST
from store.artifact import Artifact
from store.names import EMBEDDING

Operation = Literal["int8", "f32", "f64"]

_FILE_BYTES = 1 << 30
_PIECE = 1 << 20  # 8-byte words of the file that are summed at a time
_VECTOR = 16 * HOST.tokens  # bytes
_CHAINS = 12  # sums that grow side by side, so that none waits for itself
_INPUTS = 64  # vectors that take turns, so that nothing can be computed once for all rounds
_ROUNDS = 1 << 22
_TRIES = 5


@dataclass(frozen=True)
class Work:
    """What a row has to do at least on its threads: bytes to move; operations, two for a product and its sum."""

    threads: int
    bytes: float
    operations: float = 0.0
    of: Operation = "f32"


def forward_work(threads: int, model: Artifact, tokens: int, of: Operation) -> Work:
    """A forward: every matrix read once as it is stored, and multiplied by every token."""
    tied = model.config.tie_word_embeddings
    matrices = [info for name, info in model.tensors.items() if len(info.shape) == 2 and (tied or name != EMBEDDING)]
    values = sum(info.shape[0] * info.shape[1] for info in matrices)
    return Work(threads, sum(info.nbytes for info in matrices), 2.0 * values * tokens, of)


@dataclass(frozen=True)
class Limits:
    """Bytes and operations in a second on so many threads."""

    threads: int
    bytes: float
    int8: float
    f32: float
    f64: float

    def share(self, work: Work, seconds: float) -> float:
        """The time that the work takes at the limit that binds it, as a share of the time it took."""
        peak: float = asdict(self)[work.of]
        return max(work.bytes / self.bytes, work.operations / peak) / seconds

    def __str__(self) -> str:
        peaks = ", ".join(f"{of} {asdict(self)[of] / 1e9:.0f}" for of in ("int8", "f32", "f64"))
        return f"{self.threads} thread{'s'[: self.threads - 1]}: {self.bytes / 1e9:.1f} GB/s read, {peaks} GOP/s"


def measure_limits(folder: Path, threads: int) -> Limits:
    """The limits on so many threads; the best of a few tries each, which disturbs nobody's other figures."""
    peaks = [
        _operation_rate(loop, threads) for loop in (_dots(), _fmas(F32, np.float32), _fmas(ir.DoubleType(), np.float64))
    ]
    return Limits(threads, _read_rate(folder / "limits.bin"), *peaks)


@numba.njit(nogil=True)
def _sum(words: NDArray[np.uint64]) -> np.uint64:
    total = np.uint64(0)
    for i in range(words.size):
        total += words[i]
    return total


def _read_rate(path: Path) -> float:
    """Bytes in a second of a mapped file that is in the page cache."""
    if not path.exists():
        path.write_bytes(np.random.default_rng(0).bytes(_FILE_BYTES))
    words = np.memmap(path, np.uint64, "r+").reshape(-1, _PIECE)

    def compute(start: int, stop: int) -> None:
        for piece in range(start, stop):
            _sum(words[piece])

    return words.nbytes / _best(lambda: over_rows(compute, len(words)))


@dataclass(frozen=True)
class _Loop:
    """Arithmetic in registers: run(rounds, inputs, out), and the operations of a round."""

    run: Callable[[int, NDArray[Any], NDArray[Any]], None]
    inputs: NDArray[Any]
    operations: int


def _operation_rate(loop: _Loop, threads: int) -> float:
    def compute(start: int, stop: int) -> None:
        for _ in range(start, stop):
            loop.run(_ROUNDS, loop.inputs, np.empty(_CHAINS * _VECTOR, np.uint8))

    return threads * _ROUNDS * loop.operations / _best(lambda: over_rows(compute, threads))


def _best(run: Callable[[], None]) -> float:
    """Seconds of the fastest of a few tries, after one that does not count."""
    seconds = []
    for _ in range(_TRIES + 1):
        start = perf_counter()
        run()
        seconds.append(perf_counter() - start)
    return min(seconds[1:])


def _fmas(element: Any, dtype: type[np.floating[Any]]) -> _Loop:  # noqa: ANN401
    """acc = x * c + acc, rounded once."""
    lanes = _VECTOR // np.dtype(dtype).itemsize

    def emit(v: Vectors, x: Any, acc: list[Any]) -> list[Any]:  # noqa: ANN401
        return [v.fma(x, v.constant(element, lanes, 0.5 + k), one) for k, one in enumerate(acc)]

    return _loop(emit, element, element, np.ones(_INPUTS * lanes, dtype), 2 * lanes)


def _dots() -> _Loop:
    """acc = acc + sums of four products of bytes, by the instructions that quantized matmuls use here."""

    def emit(v: Vectors, x: Any, acc: list[Any]) -> list[Any]:  # noqa: ANN401
        made = [HOST.signed(v, v.constant(I8, _VECTOR, k + 1), x, one) for k, one in enumerate(acc)]
        return made if HOST.flip else [v.b.add(one, sums) for one, sums in zip(acc, made, strict=True)]

    inputs = np.random.default_rng(0).integers(-127, 128, _INPUTS * _VECTOR, np.int8)
    return _loop(emit, I8, I32, inputs, 2 * _VECTOR)


def _loop(
    emit: Callable[[Vectors, Any, list[Any]], list[Any]],
    given: Any,  # noqa: ANN401
    summed: Any,  # noqa: ANN401
    inputs: NDArray[Any],
    operations: int,
) -> _Loop:
    """A loop over `emit`: from a vector of elements `given` and all sums, elements `summed`, to the next sums."""
    lanes, sums = inputs.size // _INPUTS, _VECTOR // (8 if summed == ir.DoubleType() else 4)

    def body(b: Any, rounds: Any, start: Any, out: Any) -> None:  # noqa: ANN401
        v, i64 = Vectors(b), rounds.type
        acc = [cgutils.alloca_once_value(b, ir.Constant(ir.VectorType(summed, sums), None)) for _ in range(_CHAINS)]
        with cgutils.for_range(b, rounds) as loop:
            x = v.load(given, lanes, start, b.mul(b.and_(loop.index, i64(_INPUTS - 1)), i64(lanes)))
            for place, value in zip(acc, emit(v, x, [b.load(one) for one in acc]), strict=True):
                b.store(value, place)
        for k, place in enumerate(acc):
            v.store(b.load(place), out, i64(k * _VECTOR))

    step = array_intrinsic(3, types.void, body)

    @numba.njit(nogil=True)
    def run(rounds: int, start: NDArray[Any], out: NDArray[Any]) -> None:
        step(rounds, start, out)

    return _Loop(run, inputs, operations * _CHAINS)
