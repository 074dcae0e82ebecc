"""How far stored values may lie from their sources, and how two stored tensors are apart in these terms: one pass.

What a format says of a group of values (half a step, the ends of its range) comes in tables, workbench/bisect/weights;
here it is spread over the values, row by row, in memory that stays in the nearest cache.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import helper, kernel
from kernels.machine.operations import bits
from kernels.machine.parallel import over_rows
from kernels.rows.dequantize import at_hand, dequantize_rows
from kernels.weight import TensorType

BLOCK = 32  # values that the sums of a factor are gathered over, and the worst distance is told of
_BAND = 32  # rows whose costs are added up first, whichever thread has them
_LARGEST = np.finfo(np.float32).max
_ZERO, _INFINITE, _NOWHERE = np.float32(0), np.float32(np.inf), np.float32(np.nan)
_NONE, _LOW, _HIGH = np.uint8(0), np.uint8(1), np.uint8(2)
_EXPONENT = np.uint32(0x7F800000)
_SHARE = 1 << 16  # elements that are worth a thread, and stay in a nearby cache

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]


class Reach(NamedTuple):
    """Rows of a stored tensor, and what its format says of the values in them.

    raw : uint8 (rows, bytes). numbers : int64, the type, values of a group (0 for floats, of which the table is empty),
    and whether sources may lie beyond the ends of the range. shares : float32, by which a value may be off of itself,
    of itself less that of code 0; for floats of its power of two, at least, and further. table : float32 (rows,
    groups, 4), half a step, the lowest and the highest value, that of code 0.
    """

    raw: Bytes
    numbers: NDArray[np.int64]
    shares: Floats
    table: Floats

    @property
    def type(self) -> TensorType:
        """How the rows are stored."""
        return TensorType(int(self.numbers[0]))


class Distances(NamedTuple):
    """What two tensors of one shape are apart, by row.

    worst : float32 (rows, blocks), the largest distance in multiples of what both formats may cost. sums : float64
    (rows, 6), the squares of a, b and b - a that are numbers, of the distances inside the ranges of codes, how many of
    these there are, and what the steps of both formats cost in the mean square, three times. terms : float64 (rows,
    runs of columns, 6), over blocks, <a,a> <a,b> <b,b> and the squares <a,b>^2 <a,b><a,a> <a,a>^2. cost : float64
    (columns,), that of sums over all rows. left : bool (rows,), rows of which nothing is known but the worst distances.
    """

    worst: Floats
    sums: Doubles
    terms: Doubles
    cost: Doubles
    left: NDArray[np.bool_]


@helper()
def _reach_row(
    numbers: NDArray[np.int64], shares: Floats, table: Floats, values: Floats, width: Floats, cut: Bytes
) -> None:
    """Half a step of every value and what else it may be off; and whether it is an end of its range."""
    size, ends = numbers[1], numbers[2] != 0
    if size == 0:
        stored, powers = values.view(np.uint32), width.view(np.uint32)
        for i in range(values.size):
            powers[i] = stored[i] & _EXPONENT
            cut[i] = _NONE
        for i in range(values.size):
            width[i] = max(width[i] * shares[2], shares[3]) + shares[4]
        return
    own, late = shares[0], shares[1]
    for g in range(values.size // size):
        half, low, high, least = table[g, 0], table[g, 1], table[g, 2], table[g, 3]
        if not ends or low == high:  # without a step there is no range to be cut off at
            low = high = _NOWHERE
        here = slice(g * size, (g + 1) * size)
        some, wide, end = values[here], width[here], cut[here]
        for i in range(size):
            value = some[i]
            known = value if abs(value) <= _LARGEST else _ZERO
            wide[i] = half + abs(known) * own + abs(known - least) * late
            end[i] = (_LOW if value == low else _NONE) | (_HIGH if value == high else _NONE)


@helper()
def _excess_row(
    a: Floats,
    b: Floats,
    width_a: Floats,
    width_b: Floats,
    cut_a: Bytes,
    cut_b: Bytes,
    excess: Floats,
    inside: NDArray[np.bool_],
) -> None:
    """|b - a| in multiples of what both formats may cost; infinite where one is not finite. And what is inside."""
    bits_a, bits_b = a.view(np.uint32), b.view(np.uint32)
    for i in range(a.size):
        x, y = a[i], b[i]
        d, one, other = y - x, cut_a[i], cut_b[i]
        up = d > 0  # B is above: was A cut off at its top, or B at its bottom?
        beyond_a = one & (_HIGH if up else _LOW)
        beyond_b = other & (_LOW if up else _HIGH)
        allowed = (_INFINITE if beyond_a else width_a[i]) + (_INFINITE if beyond_b else width_b[i])
        found = np.float32(0) if d == 0 else abs(d) / allowed
        numbers = abs(x) <= _LARGEST and abs(y) <= _LARGEST
        same = bits_a[i] == bits_b[i]
        found = found if numbers else (np.float32(0) if same else _INFINITE)
        excess[i] = found if found == found else _INFINITE
        inside[i] = abs(d) <= _LARGEST and one == 0 and other == 0


@helper()
def _worst_row(excess: Floats, worst: Floats) -> np.uint32:
    """The largest one of every block, and the bits of that of all."""
    ordered, whole = excess.view(np.uint32), np.uint32(0)  # of numbers that are not negative, in their order
    for block in range(worst.size):
        most = np.uint32(0)
        for i in range(block * BLOCK, min((block + 1) * BLOCK, excess.size)):
            most = max(most, ordered[i])
        worst.view(np.uint32)[block] = most
        whole = max(whole, most)
    return whole


@helper(reassociate=True)
def _sums_row(
    a: Floats,
    b: Floats,
    width_a: Floats,
    width_b: Floats,
    excess: Floats,
    inside: NDArray[np.bool_],
    sums: Doubles,
    cost: Doubles,
) -> None:
    """The sums of a row, and its costs added to those of the columns."""
    of_a = of_b = of_d = within = total = 0.0
    for i in range(a.size):
        x, y = a[i], b[i]
        d = y - x
        x, y = (x if abs(x) <= _LARGEST else _ZERO), (y if abs(y) <= _LARGEST else _ZERO)
        d = d if abs(d) <= _LARGEST else _ZERO
        of_a += np.float64(x) * np.float64(x)
        of_b += np.float64(y) * np.float64(y)
        of_d += np.float64(d) * np.float64(d)
    count = np.uint32(0)
    for i in range(a.size):
        e = excess[i] if inside[i] else _ZERO
        e = np.float64(e if e <= _LARGEST else _ZERO)
        within += e * e
    for i in range(a.size):
        count = np.uint32(count + np.uint32(inside[i]))
    for i in range(a.size):
        one, other = width_a[i], width_b[i]
        known = one + other <= _LARGEST
        one, other = (one if known else _ZERO), (other if known else _ZERO)
        square = np.float64(one) * np.float64(one) + np.float64(other) * np.float64(other)
        cost[i] += square
        total += square
    sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] = of_a, of_b, of_d, within, count, total


@helper(reassociate=True)
def _terms_row(a: Floats, b: Floats, inside: NDArray[np.bool_], least: float, run: int, terms: Doubles) -> None:
    """Sums over blocks, of values that count, and over the blocks of every run; blocks of less energy are left out."""
    terms[:] = 0
    for block in range(a.size // BLOCK):
        aa = ab = bb = 0.0
        for i in range(block * BLOCK, (block + 1) * BLOCK):
            x = np.float64(a[i]) if inside[i] else 0.0
            y = np.float64(b[i]) if inside[i] else 0.0
            aa += x * x
            ab += x * y
            bb += y * y
        if aa > least:
            of = terms[block // run]
            of[0] += aa
            of[1] += ab
            of[2] += bb
            of[3] += ab * ab
            of[4] += ab * aa
            of[5] += aa * aa


_REACH = "int64[::1], float32[::1], float32[:, :, ::1]"
_OUT = "float64[:, ::1], float64[:, :, ::1], float64[:, ::1], int64, int64"


@kernel(f"void({_REACH}, float32[:, ::1], float32[:, ::1], uint8[:, ::1], int64, int64)")
def _reaches(
    numbers: NDArray[np.int64],
    shares: Floats,
    table: Floats,
    values: Floats,
    width: Floats,
    cut: Bytes,
    start: int,
    stop: int,
) -> None:
    for r in range(start, stop):
        _reach_row(numbers, shares, table[r], values[r], width[r], cut[r])


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], uint8[:, ::1], uint8[:, ::1],"
    " float32[:, ::1], boolean[:, ::1], int64, int64)"
)
def _excess(
    a: Floats,
    b: Floats,
    width_a: Floats,
    width_b: Floats,
    cut_a: Bytes,
    cut_b: Bytes,
    excess: Floats,
    inside: NDArray[np.bool_],
    start: int,
    stop: int,
) -> None:
    for r in range(start, stop):
        _excess_row(a[r], b[r], width_a[r], width_b[r], cut_a[r], cut_b[r], excess[r], inside[r])


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], boolean[:, ::1],"
    f" boolean[:, ::1], float64, int64, {_OUT})"
)
def _tally(
    a: Floats,
    b: Floats,
    width_a: Floats,
    width_b: Floats,
    excess: Floats,
    inside: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    least: float,
    run: int,
    sums: Doubles,
    terms: Doubles,
    cost: Doubles,
    start: int,
    stop: int,
) -> None:
    for band in range(start, stop):
        cost[band] = 0
        for r in range(band * _BAND, min((band + 1) * _BAND, len(a))):
            _sums_row(a[r], b[r], width_a[r], width_b[r], excess[r], inside[r], sums[r], cost[band])
            _terms_row(a[r], b[r], counted[r], least, run, terms[r])


@kernel(
    f"void(float32[:, ::1], {_REACH}, float32[:, ::1], {_REACH}, float32, float64, int64, float32[:, ::1],"
    f" boolean[::1], {_OUT})"
)
def _both(
    a: Floats,
    numbers_a: NDArray[np.int64],
    shares_a: Floats,
    table_a: Floats,
    b: Floats,
    numbers_b: NDArray[np.int64],
    shares_b: Floats,
    table_b: Floats,
    most: np.float32,
    least: float,
    run: int,
    worst: Floats,
    left: NDArray[np.bool_],
    sums: Doubles,
    terms: Doubles,
    cost: Doubles,
    start: int,
    stop: int,
) -> None:
    n, farthest = a.shape[1], bits(most)
    width, cut = np.empty((2, n), np.float32), np.empty((2, n), np.uint8)
    excess, inside = np.empty(n, np.float32), np.empty(n, np.bool_)
    for band in range(start, stop):
        cost[band] = 0
        for r in range(band * _BAND, min((band + 1) * _BAND, len(worst))):
            _reach_row(numbers_a, shares_a, table_a[r], a[r], width[0], cut[0])
            _reach_row(numbers_b, shares_b, table_b[r], b[r], width[1], cut[1])
            _excess_row(a[r], b[r], width[0], width[1], cut[0], cut[1], excess, inside)
            left[r] = _worst_row(excess, worst[r]) > farthest
            if not left[r]:
                _sums_row(a[r], b[r], width[0], width[1], excess, inside, sums[r], cost[band])
                _terms_row(a[r], b[r], inside, least, run, terms[r])


def reaches(side: Reach, columns: int) -> tuple[Floats, Floats, Bytes]:
    """Values, how far each may lie from its source, and which ends of its range it is; all (rows, columns).

    An end: 1 the lowest value, 2 the highest, 3 both.
    """
    values = dequantize_rows(side.type, side.raw, columns)
    width, cut = np.empty_like(values), np.empty(values.shape, np.uint8)
    over_rows(lambda start, stop: _reaches(*side[1:], values, width, cut, start, stop), len(values), _rows(columns))
    return values, width, cut


def excesses(a: tuple[Floats, Floats, Bytes], b: tuple[Floats, Floats, Bytes]) -> tuple[Floats, NDArray[np.bool_]]:
    """|b - a| in multiples of what both may be off, infinite where one is not finite; and which are within a range.

    a, b : values, widths and ends as `reaches` gives them. A source beyond an end may lie at any distance.
    """
    excess, inside = np.empty_like(a[0]), np.empty(a[0].shape, np.bool_)
    sides = a[0], b[0], a[1], b[1], a[2], b[2]
    over_rows(
        lambda start, stop: _excess(*sides, excess, inside, start, stop),
        len(excess),
        _rows(excess.shape[1]),
    )
    return excess, inside


def tally(
    values: tuple[Floats, Floats],
    widths: tuple[Floats, Floats],
    excess: Floats,
    inside: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    least: float,
    run: int,
) -> Distances:
    """The sums of two tensors whose distances are known; `worst` is empty.

    inside : values whose distances count. counted : those that tell a factor. least : energy of a block that tells one.
    run : blocks of a run of columns.
    """
    found = _room(len(excess), excess.shape[1], run)
    over_rows(
        lambda start, stop: _tally(
            *values, *widths, excess, inside, counted, least, run, found.sums, found.terms, found.cost, start, stop
        ),
        len(found.cost),
    )
    return found._replace(cost=found.cost.sum(axis=0))


def distances(a: Reach, b: Reach, columns: int, most: float, least: float, run: int) -> Distances:
    """The same of stored rows, of which a few at a time stand dequantized in memory.

    most : distance beyond which a row is left for another look.
    """
    found = _room(len(a.raw), columns, run)

    def share(start: int, stop: int) -> None:
        for band in range(start, stop, _bands(columns)):
            bands = slice(band, min(band + _bands(columns), stop))
            rows = slice(bands.start * _BAND, bands.stop * _BAND)
            one, other = (at_hand(use, side.type, side.raw[rows], columns) for use, side in (("a", a), ("b", b)))
            of_a, of_b = ((side.numbers, side.shares, side.table[rows]) for side in (a, b))
            rules = np.float32(most), least, run
            worst, left = found.worst[rows], found.left[rows]
            sums, terms, cost = found.sums[rows], found.terms[rows], found.cost[bands]
            _both(one, *of_a, other, *of_b, *rules, worst, left, sums, terms, cost, 0, len(cost))

    over_rows(share, len(found.cost), _bands(columns))
    return found._replace(cost=found.cost.sum(axis=0))


def _bands(columns: int) -> int:
    """So many bands of rows stay in a nearby cache."""
    return max(1, _SHARE // (_BAND * columns))


def _room(rows: int, columns: int, run: int) -> Distances:
    blocks = -(-columns // BLOCK)
    return Distances(
        np.empty((rows, blocks), np.float32),
        np.zeros((rows, 6)),
        np.zeros((rows, max(1, -(-blocks // run)), 6)),
        np.empty((-(-rows // _BAND), columns)),
        np.zeros(rows, np.bool_),
    )


def _rows(columns: int) -> int:
    return max(1, _SHARE // columns)
