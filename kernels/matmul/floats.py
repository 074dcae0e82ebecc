"""x @ W.T over dequantized weights: float32, float64, and float32 in APR's order of sums.

Each thread dequantizes a few hundred columns of a few stored rows at a time into a buffer that stays in cache and
multiplies them with all tokens, so that a matrix is read once and never stands dequantized in memory.
"""

from collections.abc import Callable
from threading import local
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import helper, kernel
from kernels.machine.memory import scratch
from kernels.machine.operations import fma
from kernels.matmul.float_dot import APR, CHUNK, FLOAT32, FLOAT64, MOVED, ROWS, STRIDE, Scheme, folded, group_dot, move
from kernels.matmul.products import room, side_by_side
from kernels.rows.dequantize import dequantizer
from kernels.rows.unpack import row_buffers
from kernels.weight import Weight

Real = TypeVar("Real", np.float32, np.float64)


@helper()
def _each(total, left, x, w, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The sum of the chains with the last `left` products of x added, whose weights are at w[place] and on."""
    for k in range(left):
        total += x[len(x) - left + k] * w[place + k]
    return total


@helper()
def _fours(total, left, x, w, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    for k in range(left // 4 * 4):
        total += x[len(x) - left + k] * w[place + k]
    for k in range(left // 4 * 4, left):
        total = fma(x[len(x) - left + k], w[place + k], total)
    return total


@helper()
def _double(total, left, x, w, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    wide = np.float64(total)
    for k in range(left):
        wide += np.float64(x[len(x) - left + k] * w[place + k])
    return np.float32(wide)


_BEYOND = {"each": _each, "fours": _fours, "double": _double}


@helper()
def _by_pairs(w, row, columns, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Of every unit of columns of w[row] the second of all pairs, then the first of them, as chains take them."""
    half, firsts = unit // 2, np.empty(unit // 2, w.dtype)
    for start in range(0, columns, unit):
        for i in range(half):
            firsts[i] = w[row, start + 2 * i]
        for i in range(half):
            w[row, start + i] = w[row, start + 2 * i + 1]
        for i in range(half):
            w[row, start + half + i] = firsts[i]


def multiplier(scheme: Scheme) -> Callable[..., None]:
    """The product in one order of sums; arguments as `_matmul_f32`."""
    dots, fold, fill = group_dot(scheme), folded(scheme), dequantizer(scheme.element)
    unit, tile, abreast, beyond = scheme.unit, scheme.tile, scheme.together, _BEYOND[scheme.beyond]
    paired = scheme.paired

    @helper(of=scheme)
    def multiply(type, rows, x, tiled, w, acc, out, column, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Rows start to stop, ROWS at a time and chunk by chunk, against every token: out[token, column + row]."""
        (tokens, n), length, tiles = x.shape, rows.shape[1], (len(x) + tile - 1) // tile
        codes, scales, mins, d, dmin = row_buffers(CHUNK)
        sums = np.empty((abreast, ROWS), w.dtype)
        for r in range(start, stop, ROWS):
            together = min(ROWS, stop - r)
            acc[:] = 0
            for c in range(0, n, CHUNK):
                count, place = min(CHUNK, n - c), r * length + c * length // n
                ahead = (r + ROWS) * length + ROWS * (c * length // n)  # the next rows, a part with each chunk
                for i in range(together):
                    fill(type, count, rows, place + i * length, w, i * STRIDE, codes, scales, mins, d, dmin)
                if count < unit:
                    continue
                if paired:
                    for i in range(together):
                        _by_pairs(w, i, count // unit * unit, unit)
                size = ROWS * (count * length // n) // tiles
                dots(tiles, count // unit * unit, w, tiled, c * tiles * tile, acc, rows, ahead, size)
            left = n % unit
            for first in range(0, tokens, abreast):
                if together == ROWS and left == 0 and first + abreast <= tokens:
                    fold(acc, first // abreast, out, first * out.shape[1] + column + r, out.shape[1])
                    continue
                fold(acc, first // abreast, sums, 0, ROWS)
                for token in range(first, min(first + abreast, tokens)):
                    for i in range(together):
                        total = sums[token - first, i]
                        out[token, column + r + i] = beyond(total, left, x[token], w[i], (n - 1) % CHUNK + 1 - left)

    return multiply


_multiply_f32 = multiplier(FLOAT32)
_multiply_f64 = multiplier(FLOAT64)
_multiply_apr = multiplier(APR)

SINGLE = (
    "void(int64, uint8[:, ::1], float32[:, ::1], float32[::1], float32[:, ::1], float32[::1],"
    " float32[:, ::1], int64, int64, int64)"
)
_DOUBLE = SINGLE.replace("float32", "float64")


@kernel(SINGLE)
def _matmul_f32(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.float32],
    tiles: NDArray[np.float32],  # x once more, as `_tiled` lays it out
    w: NDArray[np.float32],  # room for ROWS rows of CHUNK columns
    acc: NDArray[np.float32],  # room for the sums of ROWS rows and all tokens
    out: NDArray[np.float32],
    column: int,
    start: int,
    stop: int,
) -> None:
    _multiply_f32(type, rows, x, tiles, w, acc, out, column, start, stop)


@kernel(SINGLE)
def _matmul_f32_apr(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.float32],
    tiles: NDArray[np.float32],
    w: NDArray[np.float32],
    acc: NDArray[np.float32],
    out: NDArray[np.float32],
    column: int,
    start: int,
    stop: int,
) -> None:
    _multiply_apr(type, rows, x, tiles, w, acc, out, column, start, stop)


@kernel(_DOUBLE)
def _matmul_f64(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.float64],
    tiles: NDArray[np.float64],
    w: NDArray[np.float64],
    acc: NDArray[np.float64],
    out: NDArray[np.float64],
    column: int,
    start: int,
    stop: int,
) -> None:
    _multiply_f64(type, rows, x, tiles, w, acc, out, column, start, stop)


@kernel("void(uint32[:, ::1], int64, int64, int64, int64, uint32[::1])")
def _tile(x: NDArray[np.uint32], columns: int, step: int, tile: int, chunk: int, out: NDArray[np.uint32]) -> None:
    places = (len(x) + tile - 1) // tile * tile
    for c in range(0, columns, chunk):
        size = min(chunk, columns - c)
        for token in range(len(x)):
            to = c * places + token // tile * tile * size + token % tile * step
            for start in range(c, c + size, step):
                for word in range(0, step, MOVED):
                    move(x, token * x.shape[1] + start + word, out, to + word)
                to += tile * step


def _tiled(x: NDArray[Real], scheme: Scheme) -> NDArray[Real]:
    """X (tokens, in) as the dot products read it: chunk by chunk (tiles, in / chains, tokens of a tile, chains).

    Elements beyond the last multiple of the chains are left out; tokens that fill up the last tile are zero, because
    what may lie in memory else, such as denormal numbers, can take very long to multiply.
    """
    columns, words = x.shape[1] // scheme.unit * scheme.unit, x.itemsize // 4
    if scheme.paired:
        pairs = x[:, :columns].reshape(len(x), -1, scheme.chains, 2)[..., ::-1]
        x = np.ascontiguousarray(pairs.swapaxes(2, 3)).reshape(len(x), columns)
    out = scratch("tiles", (scheme.places(len(x)) * columns,), x.dtype.type)
    if scheme.places(len(x)) != len(x):
        out[:] = 0
    sizes = columns * words, scheme.chains * words, scheme.tile, CHUNK * words
    _tile(x.view(np.uint32), *sizes, out.view(np.uint32))
    return out


def product(
    compute: Callable[..., None], scheme: Scheme, x: NDArray[Real], weights: tuple[Weight, ...]
) -> NDArray[Real]:
    """Return x @ W.T for each weight, side by side. compute : a kernel of `multiplier(scheme)`, with SINGLE or such."""
    own = local()  # what a thread has made for itself is nearer to it than what another one has made

    def some(weight: Weight, out: NDArray[Real], column: int, start: int, stop: int) -> None:
        if not hasattr(own, "tiles"):
            own.tiles = _tiled(x, scheme)
        w = scratch("rows", (ROWS, STRIDE), x.dtype.type)  # of which those that are not there are multiplied too
        acc = scratch("chains", (scheme.places(len(x)) * ROWS * scheme.chains,), x.dtype.type)
        rows = weight.stored[start:stop]
        compute(int(weight.type), rows, x, own.tiles, w, acc, out, column + start, 0, stop - start)

    out: NDArray[Real] = room(weights, len(x), x.dtype.type)
    side_by_side(weights, out, some, ROWS)
    return out


def matmul_f32(x: NDArray[np.float32], *weights: Weight) -> NDArray[np.float32]:
    """x @ W.T for each weight, side by side: x float32 (tokens, in), weights of shape (out, in).

    Returns float32 (tokens, all outs).
    """
    return product(_matmul_f32, FLOAT32, x, weights)


def matmul_f32_apr(x: NDArray[np.float32], *weights: Weight) -> NDArray[np.float32]:
    """The same in APR's order of sums: eight fma lanes (`f32_matmul` in aprender-serve)."""
    return product(_matmul_f32_apr, APR, x, weights)


def matmul_f64(x: NDArray[np.float64], *weights: Weight) -> NDArray[np.float64]:
    """The same in float64 over the float32 values of the weights; x float64, returns float64."""
    return product(_matmul_f64, FLOAT64, x, weights)
