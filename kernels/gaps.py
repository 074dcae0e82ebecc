"""Percentiles of |a - b| of float32 tensors, exact, and seldom by more than one pass over them.

A sample says between which two values each percentile lies almost certainly. The pass counts what is below the lower
one and what is equal to it, and keeps what lies between; among those is the percentile, by its rank. If it is not, the
two values are taken further apart.

The bits of floats that are not negative stand in the order of their values; those that are not finite come last.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.machine.compiler import helper, kernel
from kernels.machine.memory import lent
from kernels.machine.operations import bits
from kernels.machine.vectors import F32, I32, Vectors, array_intrinsic

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

LANES = 16  # gaps of a vector
COUNTS = 2 * len(PERCENTILES) + 1  # gaps below and up to each lower value, and below infinity
_INFINITE = 0x7F800000
_SAMPLE = 1 << 12  # gaps, in runs of a vector
_GOLDEN = (math.sqrt(5) - 1) / 2  # steps of this size spread evenly, whatever a row's length is
_DEVIATIONS = (4.0, 32.0, math.inf)  # of a rank in the sample
_PLACES = np.arange(_SAMPLE // LANES) * _GOLDEN % 1

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]


class Search:
    """The percentiles of the gaps of two tensors (tokens, channels), which are in C order.

    A pass hands `edges` and what `room` gives to `keep`, and what comes of it to `add`; `found` says whether that was
    enough, and if not, `widen` asks for another pass. The last one is always enough.
    edges : bits of the two values around each percentile, uint32 (2, percentiles).
    """

    def __init__(self, a: Floats, b: Floats) -> None:
        self._sample = _sample(a.reshape(-1), b.reshape(-1))
        self._deviations = iter(_DEVIATIONS if self._sample.size else _DEVIATIONS[-1:])
        self.widen()

    def widen(self) -> None:
        """Begin anew with edges further apart."""
        edges, count, deviations = np.empty((2, len(PERCENTILES)), np.uint32), self._sample.size, next(self._deviations)
        for k, share in enumerate(PERCENTILES.values()):
            reach = deviations * (share * (1 - share) * max(count, 1)) ** 0.5 + 1
            low, high = share * count - reach, share * count + reach
            edges[0, k] = self._sample[int(low)] if low >= 0 else 0
            edges[1, k] = self._sample[int(high)] if high < count else _INFINITE
        self.edges, self._parts = edges, list[tuple[Words, Words]]()

    @staticmethod
    def room(values: int) -> tuple[Words, Words]:
        """What `keep` counts in and writes to, for so many values."""
        return np.zeros((COUNTS, LANES), np.uint32), lent((values + LANES,), np.uint32)

    def add(self, counts: Words, kept: Words) -> None:
        """Take what was counted and kept of some rows."""
        self._parts.append((counts, kept))

    def found(self) -> dict[str, float] | None:
        """The percentiles by name, between two neighbours as NumPy interpolates them; empty if no gap is finite."""
        counts = sum(counts.sum(axis=1, dtype=np.int64) for counts, _ in self._parts).tolist()
        if not (total := counts[-1]):
            return {}
        kept = np.sort(np.concatenate([kept for _, kept in self._parts]))
        starts, ends = kept.searchsorted(self.edges[0], "right").tolist(), kept.searchsorted(self.edges[1]).tolist()
        neighbours = []
        for k, share in enumerate(PERCENTILES.values()):
            below, upto = counts[k], counts[len(PERCENTILES) + k]
            first = int(share * (total - 1))
            for rank in (first, min(first + 1, total - 1)):
                place = starts[k] + rank - upto
                if rank < below or (rank >= upto and place >= ends[k]):
                    return None
                neighbours.append(kept[place] if rank >= upto else self.edges[0, k])
        low_high = np.array(neighbours, np.uint32).view(np.float32).astype(np.float64).tolist()
        parts = [share * (total - 1) % 1 for share in PERCENTILES.values()]
        pairs = zip(low_high[::2], low_high[1::2], parts, strict=True)
        values = (low + (high - low) * part for low, high, part in pairs)
        return dict(zip(PERCENTILES, values, strict=True))


def _sample(a: Floats, b: Floats) -> Words:
    """The bits of some gaps that are finite, in order."""
    runs = a.size // LANES if a.size > _SAMPLE else 0
    places = (_PLACES * runs).astype(np.int64) * LANES if runs else np.arange(0, a.size, LANES)
    found = np.empty(places.size * LANES, np.uint32)
    found = np.sort(found[: _look_at(a, b, places, found)])
    return found[: found.searchsorted(np.uint32(_INFINITE))]


@kernel("int64(float32[::1], float32[::1], int64[::1], uint32[::1])")
def _look_at(a: Floats, b: Floats, places: NDArray[np.int64], out: Words) -> int:
    """Gaps in runs of a vector that begin at some places."""
    n = 0
    for place in places:
        for i in range(place, min(place + LANES, a.size)):
            out[n] = bits(abs(a[i] - b[i]))
            n += 1
    return n


def _emit_keep(b: Any, *values: Any) -> Any:  # noqa: ANN401
    """Gaps of whole vectors: counts of them, and those between two values to the end of `out`."""
    rows, start, vectors, edges, counts, out, kept = values[:2], *values[2:]
    v, i64, wide = Vectors(b), vectors.type, ir.VectorType(I32, LANES)
    percentiles = len(PERCENTILES)
    below, above = (
        [v.splat(b.load(b.gep(edges, [i64(side * percentiles + k)])), LANES) for k in range(percentiles)]
        for side in (0, 1)
    )
    one = v.constant(I32, LANES, 1)
    first = [b.add(edge, one) for edge in below]
    limits = [*below, *first, v.constant(I32, LANES, _INFINITE)]
    sums = [cgutils.alloca_once_value(b, v.load(I32, LANES, counts, i64(k * LANES))) for k in range(COUNTS)]
    for k, place in enumerate(sums):
        b.store(v.load(I32, LANES, counts, i64(k * LANES)), place)
    end = cgutils.alloca_once(b, i64)
    b.store(kept, end)
    with cgutils.for_range(b, vectors) as loop:
        at = b.add(start, b.mul(loop.index, i64(LANES)))
        x, y = (v.load(F32, LANES, row, at) for row in rows)
        gap = v.masked(b.bitcast(b.fsub(x, y), wide), 0x7FFFFFFF)
        for limit, place in zip(limits, sums, strict=True):
            less = b.icmp_unsigned("<", gap, limit)
            b.store(b.sub(b.load(place), b.sext(less, wide)), place)
        inside = ir.Constant(ir.VectorType(ir.IntType(1), LANES), None)
        for low, high in zip(first, above, strict=True):
            inside = b.or_(inside, b.and_(b.icmp_unsigned(">=", gap, low), b.icmp_unsigned("<", gap, high)))
        packed = v.call(f"llvm.experimental.vector.compress.v{LANES}i32", wide, gap, inside, gap)
        v.store(packed, out, b.load(end))
        number = v.call("llvm.ctpop.i16", ir.IntType(16), b.bitcast(inside, ir.IntType(16)))
        b.store(b.add(b.load(end), b.zext(number, i64)), end)
    for k, place in enumerate(sums):
        v.store(b.load(place), counts, i64(k * LANES))
    return b.load(end)


_keep_vectors = array_intrinsic(8, types.int64, _emit_keep)


@helper()
def keep(a: Floats, b: Floats, edges: Words, counts: Words, out: Words, kept: int) -> int:
    """Count the gaps of a row, and write those between two values to out[kept:]; returns where they end.

    edges : of a `Search`. counts (COUNTS, LANES): added to. out : has room for all gaps and a vector.
    """
    whole = a.size // LANES
    kept = _keep_vectors(a, b, 0, whole, edges, counts, out, kept)
    rest = a.size - whole * LANES
    if rest:
        last = np.full((2, LANES), np.float32(np.nan))  # whose gap counts nowhere
        last[0, :rest], last[1, :rest] = a[whole * LANES :], b[whole * LANES :]
        kept = _keep_vectors(last[0], last[1], 0, 1, edges, counts, out, kept)
    return kept
