"""Lengths of tensors and of their differences: one pass over what is there, in float64, without a copy.

Sums are kept by row and added up in the order of rows, so that they have the same bits for any number of threads.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import helper, kernel
from kernels.machine.parallel import over_rows

_SHARE = 1 << 18  # elements that are worth a thread
_BAND = 16  # rows whose sums by column are added up first, whichever thread has them
_LARGEST = np.finfo(np.float64).max


@helper()
def _apart(x: float, y: float) -> float:
    """The difference x - y, 0 where neither is a number: what both have lost differs in nothing."""
    lost = not (abs(x) <= _LARGEST) and not (abs(y) <= _LARGEST)
    return 0.0 if lost else x - y


@kernel(
    "void(float32[:, ::1], float64[::1], int64, int64)",
    "void(float64[:, ::1], float64[::1], int64, int64)",
    reassociate=True,
)
def _energies(x: NDArray[Any], out: NDArray[np.float64], start: int, stop: int) -> None:
    for r in range(start, stop):
        total = 0.0
        for i in range(x.shape[1]):
            value = np.float64(x[r, i])
            total += value * value if abs(value) <= _LARGEST else 0.0
        out[r] = total


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float64[::1], int64, int64)",
    "void(float32[:, ::1], float64[:, ::1], float64[::1], int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], float64[::1], int64, int64)",
    reassociate=True,
)
def _gaps(x: NDArray[Any], y: NDArray[Any], out: NDArray[np.float64], start: int, stop: int) -> None:
    for r in range(start, stop):
        total = 0.0
        for i in range(x.shape[1]):
            d = _apart(np.float64(x[r, i]), np.float64(y[r, i]))
            total += d * d
        out[r] = total


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float64[:, ::1], int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], int64, int64)",
    reassociate=True,
)
def _parts(
    a: NDArray[Any], b: NDArray[Any], between: NDArray[Any], out: NDArray[np.float64], start: int, stop: int
) -> None:
    for r in range(start, stop):
        whole = first = second = along_first = along_second = size_a = size_b = size_between = 0.0
        for i in range(a.shape[1]):
            x, y, z = np.float64(a[r, i]), np.float64(b[r, i]), np.float64(between[r, i])
            d, one, other = _apart(y, x), _apart(z, x), _apart(y, z)
            whole += d * d
            first += one * one
            second += other * other
            along_first += one * d
            along_second += other * d
            size_a += x * x if abs(x) <= _LARGEST else 0.0
            size_b += y * y if abs(y) <= _LARGEST else 0.0
            size_between += z * z if abs(z) <= _LARGEST else 0.0
        out[r, 0], out[r, 1], out[r, 2], out[r, 3], out[r, 4] = whole, first, second, along_first, along_second
        out[r, 5], out[r, 6], out[r, 7] = size_a, size_b, size_between


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], int64, int64)",
    reassociate=True,
)
def _units(
    y: NDArray[Any],
    right: NDArray[Any],
    unit: NDArray[np.float64],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    for band in range(start, stop):
        columns[band] = 0
        for r in range(band * _BAND, min((band + 1) * _BAND, len(y))):
            total = gap = size = units = 0.0
            for i in range(y.shape[1]):
                one, other, noise = np.float64(y[r, i]), np.float64(right[r, i]), unit[r, i]
                d = one - other
                alike = one == other or (one != one and other != other)
                square = d / noise * (d / noise)
                square = 0.0 if alike and not abs(one) <= _LARGEST else square
                columns[band, i] += square
                total += square
                gap += d * d
                size += one * one
                units += noise * noise
            rows[r, 0], rows[r, 1], rows[r, 2], rows[r, 3] = total, gap, size, units


class Units(NamedTuple):
    """Squares of a difference y - right in units that every element has its own of; all in float64.

    worst : the largest mean square, of the whole, of the rows and of the columns. gap, size, unit : sums of the squares
    of the difference, of y and of the units.
    """

    worst: float
    gap: float
    size: float
    unit: float


class Parts(NamedTuple):
    """A difference d = y - x of two tensors and what it is made of: first = z - x, and second = y - z.

    Of every row, float64 (rows,): the squares of the lengths of the three, and the products of both parts with d; then
    the energies of x, y and z.
    """

    whole: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    along_first: NDArray[np.float64]
    along_second: NDArray[np.float64]
    energy_x: NDArray[np.float64]
    energy_y: NDArray[np.float64]
    energy_z: NDArray[np.float64]


def energies(x: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of the squares of every row of floats (rows, columns), over those that are numbers; float64 (rows,)."""
    out = np.empty(len(x))
    x = _as_kernels_take(x, _wide(x))
    over_rows(lambda start, stop: _energies(x, out, start, stop), len(x), _least(x))
    return out


def gaps(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """The same of x - y, both (rows, columns).

    What is a number on one side only makes a sum that is not finite.
    """
    out = np.empty(len(x))
    if _wide(x) and not _wide(y):
        x, y = y, x
    x, y = (_as_kernels_take(side, _wide(side)) for side in (x, y))
    over_rows(lambda start, stop: _gaps(x, y, out, start, stop), len(x), _least(x))
    return out


def parts(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> Parts:
    """What the difference of x and y, (rows, columns), is made of where z lies between them."""
    wide, out = any(map(_wide, (x, y, z))), np.empty((len(x), len(Parts._fields)))
    a, b, between = (_as_kernels_take(side, wide) for side in (x, y, z))
    over_rows(lambda start, stop: _parts(a, b, between, out, start, stop), len(x), _least(x))
    return Parts(*out.T)


def in_units(y: NDArray[Any], right: NDArray[Any], unit: NDArray[np.float64]) -> Units:
    """How far y is from what it should be, all (rows, columns); the same NaN or infinity is no distance in units."""
    wide = _wide(y) or _wide(right)
    one, other = (_as_kernels_take(side, wide) for side in (y, right))
    unit = _as_kernels_take(unit, wide=True)
    rows, columns = np.empty((len(one), 4)), np.empty((-(-len(one) // _BAND), one.shape[1]))
    over_rows(lambda start, stop: _units(one, other, unit, rows, columns, start, stop), len(columns))
    of_columns, (total, gap, size, units) = columns.sum(axis=0), rows.sum(axis=0).tolist()
    means = total / one.size, (rows[:, 0] / one.shape[1]).max(), (of_columns / len(one)).max()
    return Units(float(np.max(means)), gap, size, units)


def _wide(x: NDArray[Any]) -> bool:
    return x.dtype != np.float32


def _as_kernels_take(x: NDArray[Any], wide: bool) -> NDArray[Any]:
    return np.require(x, dtype=np.float64 if wide else np.float32, requirements=["C", "W"])


def _least(x: NDArray[Any]) -> int:
    return max(1, _SHARE // max(1, int(x.shape[1])))
