"""How far two tensors are apart: one pass over both, float64 sums, kept per token.

`profile` reduces two (tokens, channels) tensors to a few sums per token. Every metric of any set of tokens follows
from those sums (kernels/measures.py), so a changed token scope never needs the tensors again.
Definitions: docs/metrics.md.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kernels.gaps import Search, keep
from kernels.machine.compiler import helper, kernel
from kernels.machine.operations import bits
from kernels.machine.parallel import over_rows
from kernels.measures import COL, LogitAgreement
from kernels.rows.dequantize import dequantize_row
from kernels.rows.unpack import row_buffers
from kernels.weight import Weight

Floats = NDArray[np.float32]
Words = NDArray[np.uint32]

_SHARE = 1 << 18  # elements that are worth a thread
_MOST = 1 << 22  # elements that are gone through at once, as memory for as many gaps is asked for
_VALUES = 1 << 20  # logits that are looked at at once
_EXPONENTS = np.uint32(0x7F800000)  # all ones in infinite values and in NaN
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_LOOKED_AT = 1 << 9  # values of a row that are looked at together, to find one


@helper()
def _place(pattern: np.int32) -> np.int32:
    """Place of a float32, given as its bits, among all float32 values in numeric order; -0 and +0 share theirs."""
    return pattern if pattern >= 0 else np.int32(np.int32(-2147483648) - pattern)


@helper()
def _count(a: Words, b: Words, row: NDArray[np.float64]) -> None:
    """Columns of a row that are asked of the bits alone."""
    one, none = np.uint32(1), np.uint32(0)
    same = top_a = top_b = np.uint32(0)
    for i in range(a.size):  # 32-bit counts: twice the lanes
        same = np.uint32(same + (one if a[i] == b[i] else none))
        top_a, top_b = max(top_a, a[i] & _MAGNITUDE), max(top_b, b[i] & _MAGNITUDE)
    row[COL.same_bits], row[COL.nonfinite_a], row[COL.nonfinite_b] = same, 0, 0
    if max(top_a, top_b) >= _EXPONENTS:
        _count_lost(a, b, row)


@helper()
def _count_lost(a: Words, b: Words, row: NDArray[np.float64]) -> None:
    """The same where some values are not finite."""
    same = bad_a = bad_b = 0
    for i in range(a.size):
        # two NaN are the same value, whatever sign and payload an engine's instructions leave in them
        lost = (a[i] & _MAGNITUDE > _EXPONENTS) & (b[i] & _MAGNITUDE > _EXPONENTS)
        same += (a[i] == b[i]) | lost
        bad_a += a[i] & _EXPONENTS == _EXPONENTS
        bad_b += b[i] & _EXPONENTS == _EXPONENTS
    row[COL.same_bits], row[COL.nonfinite_a], row[COL.nonfinite_b] = same, bad_a, bad_b


@helper(reassociate=True)
def _sum(a: NDArray[np.float32], b: NDArray[np.float32], row: NDArray[np.float64]) -> None:
    """Columns of a row that are sums, and the largest |d|; all values are finite."""
    n = max(a.size, 1)
    sum_a = sum_b = energy_d = abs_d = skew = 0.0
    largest = np.uint64(0)
    for i in range(a.size):
        x, y = np.float64(a[i]), np.float64(b[i])
        d = x - y
        sum_a += x
        sum_b += y
        energy_d += d * d
        abs_d += abs(d)
        skew += d * (x + y)
        largest = max(largest, bits(abs(d)))
    mean_a, mean_b = sum_a / n, sum_b / n
    centred_a = centred_b = 0.0
    for i in range(a.size):
        x, y = a[i] - mean_a, b[i] - mean_b
        centred_a += x * x
        centred_b += y * y
    row[COL.finite], row[COL.mean_a], row[COL.mean_b] = a.size, mean_a, mean_b
    row[COL.centred_a], row[COL.centred_b] = centred_a, centred_b
    row[COL.energy_a], row[COL.energy_b] = centred_a + n * mean_a * mean_a, centred_b + n * mean_b * mean_b
    row[COL.energy_d], row[COL.abs_d], row[COL.skew] = energy_d, abs_d, skew
    row.view(np.uint64)[COL.max_abs] = largest


@helper()
def _most_steps(a: NDArray[np.int32], b: NDArray[np.int32]) -> tuple[np.uint32, np.bool_]:
    """Largest distance in float32 steps of finite values given as their bits, and whether it is one across zero."""
    most = most_of_one_sign = np.uint32(0)
    for i in range(a.size):
        x, y = _place(a[i]), _place(b[i])
        low, high = min(x, y), max(x, y)
        steps = np.uint32(np.uint32(high) - np.uint32(low))
        most = max(most, steps)
        most_of_one_sign = max(most_of_one_sign, steps if low >= 0 or high <= 0 else np.uint32(0))
    return most, most > most_of_one_sign


@helper()
def _finite_pairs(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The pairs in which both values are finite."""
    kept_a, kept_b = np.empty_like(a), np.empty_like(b)
    n = 0
    for i in range(a.size):
        kept_a[n], kept_b[n] = a[i], b[i]
        n += 1 if np.isfinite(a[i]) and np.isfinite(b[i]) else 0
    return kept_a[:n], kept_b[:n]


@helper()
def _first_at(a: Floats, b: Floats, gap: float) -> np.int64:
    """Where |a - b| first has this value; 0 if nowhere."""
    for start in range(0, a.size, _LOOKED_AT):
        stop = min(start + _LOOKED_AT, a.size)
        at = np.int64(stop)
        for i in range(start, stop):
            at = min(at, np.int64(i) if abs(np.float64(a[i]) - np.float64(b[i])) == gap else np.int64(stop))
        if at < stop:
            return at
    return np.int64(0)


@helper()
def _profile_row(a: NDArray[np.float32], b: NDArray[np.float32], row: NDArray[np.float64]) -> None:
    """All columns of one row of a profile."""
    _count(a.view(np.uint32), b.view(np.uint32), row)
    x, y = a, b
    if row[COL.nonfinite_a] + row[COL.nonfinite_b] > 0:
        x, y = _finite_pairs(a, b)
    _sum(x, y, row)
    at = _first_at(a, b, row[COL.max_abs])
    row[COL.channels] = a.size
    row[COL.max_ulp], row[COL.across_zero] = _most_steps(x.view(np.int32), y.view(np.int32))
    row[COL.max_channel], row[COL.max_a], row[COL.max_b] = at, a[at], b[at]


@kernel("int64(float32[:, ::1], float32[:, ::1], float64[:, ::1], uint32[:, ::1], uint32[:, ::1], uint32[::1])")
def _profile(
    a: Floats, b: Floats, out: NDArray[np.float64], edges: Words, counts: Words, kept: NDArray[np.uint32]
) -> int:
    """Profiles of all rows; where there is room for gaps, they are counted and kept meanwhile. Returns their number."""
    end = 0
    for r in range(a.shape[0]):
        _profile_row(a[r], b[r], out[r])
        if kept.size:
            end = keep(a[r], b[r], edges, counts, kept, end)
    return end


@kernel("void(int64, uint8[:, ::1], int64, uint8[:, ::1], int64, float64[:, ::1], int64, int64)")
def _profile_stored(
    type_a: int,
    a: NDArray[np.uint8],
    type_b: int,
    b: NDArray[np.uint8],
    columns: int,
    out: NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    values = np.empty((2, columns), np.float32)
    codes, scales, mins, d, dmin = row_buffers(columns)
    for r in range(start, stop):
        for side in range(2):  # one loop, as what dequantizes all types takes long to compile
            type, raw = (type_b, b) if side else (type_a, a)
            dequantize_row(type, columns, raw, r * raw.shape[1], values, side * columns, codes, scales, mins, d, dmin)
        _profile_row(values[0], values[1], out[r])


def profile(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums per token of the differences between two tensors of the same population.

    a, b : float32 (tokens, channels). Returns float64 (tokens, len(COL)), columns as in `Columns`.
    Raises ValueError if the shapes differ or are empty: such tensors cannot be compared.
    """
    a, b = _alike(a, b)
    out = np.empty((a.shape[0], len(COL)))
    nothing = np.empty((0, 0), np.uint32), np.empty((0, 0), np.uint32), np.empty(0, np.uint32)
    _share_rows(lambda start, stop: _profile(a[start:stop], b[start:stop], out[start:stop], *nothing), a)
    return out


def profile_and_percentiles(a: Floats, b: Floats) -> tuple[NDArray[np.float64], dict[str, float]]:
    """What `profile` and `gap_percentiles` give, most often by one pass."""
    a, b = _alike(a, b)
    out, search = np.empty((a.shape[0], len(COL))), Search(a, b)

    def look(start: int, stop: int) -> None:
        counts, kept = search.room((stop - start) * a.shape[1])
        end = _profile(a[start:stop], b[start:stop], out[start:stop], search.edges, counts, kept)
        search.add(counts, kept[:end])

    _share_rows(look, a)
    return out, _percentiles(search, a, b)


def _alike(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise ValueError(f"tensors of shapes {a.shape} and {b.shape} cannot be compared element by element")
    return _as_kernels_take(a), _as_kernels_take(b)


def profile_weights(a: Weight, b: Weight) -> NDArray[np.float64]:
    """Sums per row of the differences between two stored tensors of the same shape, float64 (rows, len(COL)).

    Rows are dequantized as they are compared, so the values are never all in memory.
    """
    columns = a.shape[-1]
    out = np.empty((len(a.rows), len(COL)))

    def compute(start: int, stop: int) -> None:
        of_a, of_b = a.rows[start:stop], b.rows[start:stop]
        _profile_stored(int(a.type), of_a, int(b.type), of_b, columns, out[start:stop], 0, stop - start)

    over_rows(compute, len(out), least=-(-_SHARE // columns))
    return out


@kernel("int64(float32[:, ::1], float32[:, ::1], uint32[:, ::1], uint32[:, ::1], uint32[::1])")
def _keep(a: Floats, b: Floats, edges: Words, counts: Words, kept: NDArray[np.uint32]) -> int:
    end = 0
    for r in range(a.shape[0]):
        end = keep(a[r], b[r], edges, counts, kept, end)
    return end


def gap_percentiles(a: Floats, b: Floats) -> dict[str, float]:
    """Percentiles of |a - b| in float32 over all pairs where it is finite, by the names of PERCENTILES.

    a, b : float32 (tokens, channels). Empty if no pair is finite. Between two neighbours the value is interpolated, as
    NumPy does.
    """
    a, b = _as_kernels_take(a), _as_kernels_take(b)
    search = Search(a, b)
    _look(search, a, b)
    return _percentiles(search, a, b)


def _look(search: Search, a: Floats, b: Floats) -> None:
    def look(start: int, stop: int) -> None:
        counts, kept = search.room((stop - start) * a.shape[1])
        search.add(counts, kept[: _keep(a[start:stop], b[start:stop], search.edges, counts, kept)])

    _share_rows(look, a)


def _percentiles(search: Search, a: Floats, b: Floats) -> dict[str, float]:
    """What a pass has found, or another one has to find."""
    while (found := search.found()) is None:
        search.widen()
        _look(search, a, b)
    return found


def _share_rows(compute: Callable[[int, int], object], a: NDArray[np.float32]) -> None:
    least = -(-_SHARE // a.shape[1])
    over_rows(compute, len(a), least, most=max(least, _MOST // a.shape[1]))


def _as_kernels_take(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.require(values, dtype=np.float32, requirements=["C", "W"])


def logit_agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> LogitAgreement:
    """KL divergence and top-1/top-5 agreement per token of two logit tensors (tokens, vocabulary)."""
    some = max(1, _VALUES // a.shape[1])
    found = [_agreement(a[start : start + some], b[start : start + some]) for start in range(0, len(a), some)]
    return LogitAgreement(*map(np.concatenate, zip(*found, strict=True)))


def _agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> LogitAgreement:
    """The same of a few tokens, whose logits may stand in memory in float64 several times."""
    log_a, log_b = (_log_softmax(x.astype(np.float64)) for x in (a, b))
    kl = np.maximum((np.exp(log_b) * (log_b - log_a)).sum(axis=1), 0.0)
    k = min(5, a.shape[1])
    best_a, best_b = (np.argpartition(-x, k - 1, axis=1)[:, :k] for x in (a, b))
    top5 = np.array([len(set(x) & set(y)) / k for x, y in zip(best_a.tolist(), best_b.tolist(), strict=True)])
    return LogitAgreement(kl, a.argmax(axis=1) == b.argmax(axis=1), top5)


def _log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = x - x.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
