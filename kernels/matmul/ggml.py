"""x @ W.T as llama.cpp's CPU backend computes it, bit for bit.

Activations are rounded to 8 bits (activations.py) and laid out for `packed_dot`, which multiplies a weight row,
unpacked into integer codes and scales, with all tokens. Source: ggml-cpu.c `ggml_compute_forward_mul_mat` with the
types' vec_dot. F16 and BF16 weights round the activations to that type first (ggml_floats.py).
"""

from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.formats import all_formats
from kernels.formats.format import BlockFormat, Dot, FloatFormat
from kernels.machine.compiler import helper, kernel
from kernels.machine.memory import aligned_floats, scratch
from kernels.machine.operations import bits, float_to_half, fma, half_to_float
from kernels.machine.parallel import by_token, over_rows
from kernels.machine.vectors import prefetch
from kernels.matmul.activations import Q8_K, RULES, Codes, quantize_q8_k
from kernels.matmul.byte_products import HOST, Portable
from kernels.matmul.ggml_floats import matmul_floats
from kernels.matmul.packed_dot import CHUNK, chunk_dots, corrections, sums_of, tile_results
from kernels.matmul.products import groups, joined, room, side_by_side
from kernels.matmul.routines import FOUR, PLAIN, Routines, orders
from kernels.matmul.whole_dot import whole_dots
from kernels.rows.unpack import row_buffers, unpacker
from kernels.weight import TensorType, Weight

_ROWS = 4  # rows taken together: each chunk of activations is loaded into the nearest cache once for all of them
_LINE = 16  # products of a token that are gathered before they are written, a cache line
_LEAST = 16  # rows worth a thread
_TOGETHER = 96  # tokens that are multiplied at once: what a few rows meet of more leaves the core's cache
_LEAST_CODES = 1 << 14  # codes worth a thread when they are laid out


class Packed(NamedTuple):
    """8-bit activations as `packed_dot.chunk_dots` reads them, every chunk in one piece."""

    x: NDArray[np.int8]  # (chunks, tiles, codes of all tokens of a tile); tokens and columns filled up with zeros
    xd: NDArray[np.float32]  # (chunks, tiles, scales of all tokens of a tile, each four times; float sums, once)
    sums: NDArray[np.int16]  # (chunks, tiles, sums of 16 or 32 codes of all tokens of a tile)


@kernel(
    "void(int8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64,"
    " int8[:, :, ::1], float32[:, :, ::1], int16[:, :, ::1], int64, int64)"
)
def _pack(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    beside: NDArray[np.float32],  # float sums of every block, without columns where there are none
    tile: int,
    flip: int,
    x: NDArray[np.int8],
    xd: NDArray[np.float32],
    sums: NDArray[np.int16],
    start: int,
    stop: int,
) -> None:
    tokens, n = codes.shape
    blocks = xd.shape[2] // (4 * tile) // (2 if beside.shape[1] else 1)  # in a chunk
    halves = sums.shape[2] // (8 * tile)
    inverted = np.int8(flip)
    for c in range(x.shape[0]):
        x[c, start:stop] = inverted
        xd[c, start:stop] = 0
        sums[c, start:stop] = 0
    for token in range(start * tile, min(stop * tile, tokens)):
        to, t = token // tile, token % tile
        for k in range(n // 16):
            c, part = k // 16, k % 16
            at, total = (part * tile + t) * 16, np.int16(0)
            for i in range(16):
                x[c, to, at + i] = codes[token, 16 * k + i] ^ inverted
            for i in range(16):
                total += codes[token, 16 * k + i]
            sums[c, to, (part // 8 * tile + t) * 8 + part % 8 if halves == 2 else t * 8 + part // 2] += total
        for k in range(scales.shape[1]):
            at = (k % blocks * tile + t) * 4
            xd[k // blocks, to, at : at + 4] = scales[token, k]
        for k in range(beside.shape[1]):
            xd[k // blocks, to, ((blocks + k % blocks) * tile + t) * 4] = beside[token, k]


def multiplier(dot: Dot, how: Portable, *formats: BlockFormat) -> Callable[..., None]:
    """The product for formats that are multiplied alike; arguments as those of `_compiled`."""
    unpack, blocks = unpacker(*formats), CHUNK // dot.block
    dots = whole_dots(dot, how) if dot.whole else chunk_dots(dot, how)
    correct, results, tokens_in_tile = corrections(how), tile_results(dot, how), how.tokens
    sums_in_tile, turns, flip = sums_of(dot), dot.turns, np.int8(how.flip)
    small = dot.scales == 0

    @helper(of=(dot, how.name))
    def multiply(type, n, rows, x, xd, sums, out, column, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Rows start to stop, _ROWS at a time and chunk by chunk, against every tile of tokens."""
        (chunks, tiles), (tokens, length) = x.shape[:2], (out.shape[0], rows.shape[1])
        codes, scales, mins, d, dmin = row_buffers(_ROWS * CHUNK)
        acc = aligned_floats(_ROWS * tiles * sums_in_tile * 4 * tokens_in_tile)
        line = aligned_floats(tiles * tokens_in_tile * _LINE)
        chunk_length, fours = length * CHUNK // n, tokens // 4 * 4 // tokens_in_tile
        alone = turns == 2 and n // 32 % 2 == 1  # the last block has no turn: it is added in the end
        last, beyond = n // 32 % 8 - 1, np.zeros(_ROWS, np.float32)
        for r in range(start, stop, _ROWS):
            together = min(_ROWS, stop - r)
            acc[:] = 0
            for c in range(chunks):
                count = min(CHUNK, n - CHUNK * c)
                if count < CHUNK:
                    d[:] = 0  # of blocks that are not there
                    dmin[:] = 0
                for i in range(together):
                    place = (r + i) * length + c * chunk_length
                    prefetch(rows, place + _ROWS * length, chunk_length)
                    unpack(type, count, rows, place, i * blocks, codes, scales, mins, d, dmin)
                if small:
                    correct(together, codes, scales)
                if alone and c == chunks - 1:
                    for i in range(together):
                        beyond[i] = d[i * blocks + last]
                        d[i * blocks + last] = 0
                for i in range(together):
                    dots(i, c, tiles, fours, codes, scales, mins, d, dmin, x, xd, sums, acc)
            first = (r - start) % _LINE
            for i in range(together):
                for tile in range(tiles):
                    results(i * tiles + tile, acc, line, tile * tokens_in_tile * _LINE + first + i, _LINE)
                if alone:
                    for token in range(tokens):
                        to, t = token // tokens_in_tile, token % tokens_in_tile
                        total = np.int32(0)
                        for k in range(32):
                            at = ((2 * last + k // 16) * tokens_in_tile + t) * 16 + k % 16
                            total += np.int32(codes[i * CHUNK + 32 * last + k]) * (x[chunks - 1, to, at] ^ flip)
                        factor = beyond[i] * xd[chunks - 1, to, (last * tokens_in_tile + t) * 4]
                        place = token * _LINE + first + i
                        line[place] = fma(factor, np.float32(total), line[place])
            if first + together == _LINE or r + together == stop:
                for token in range(tokens):
                    for i in range(first + together):
                        out[token, column + r - first + i] = line[token * _LINE + i]

    return multiply


def _formats(dot: Dot) -> list[BlockFormat]:
    return [format for format in all_formats() if isinstance(format, BlockFormat) and dot in orders(format)]


DOTS = tuple(dict.fromkeys(format.dot for format in all_formats() if isinstance(format, BlockFormat)))


def _compiled(dot: Dot) -> Callable[..., None]:
    multiply = multiplier(dot, HOST, *_formats(dot))

    @kernel(
        "void(int64, int64, uint8[:, ::1], int8[:, :, ::1], float32[:, :, ::1], int16[:, :, ::1],"
        " float32[:, ::1], int64, int64, int64)",
        of=dot,
    )
    def matmul_codes(
        type: int,
        n: int,
        rows: NDArray[np.uint8],
        x: NDArray[np.int8],
        xd: NDArray[np.float32],
        sums: NDArray[np.int16],
        out: NDArray[np.float32],
        column: int,
        start: int,
        stop: int,
    ) -> None:
        multiply(type, n, rows, x, xd, sums, out, column, start, stop)

    return matmul_codes


# What most files need is compiled ahead. Other types, and orders of sums that no default of this program needs, take a
# second each when they are first asked for.
_COMMON = {"Q4_0", "Q5_0", "Q8_0", "Q4_1", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
product = cache(_compiled)
for _format in all_formats():
    if isinstance(_format, BlockFormat) and _format.name in _COMMON:
        product(_format.dot)


def packed(x: Codes, format: BlockFormat, how: Portable = HOST) -> Packed:
    """Lay activations out for weights of a format."""
    (tokens, n), tile = x.codes.shape, how.tokens
    chunks, tiles, blocks = -(-n // CHUNK), -(-tokens // tile), CHUNK * x.scales.shape[1] // n  # of activations
    halves = max(1, format.dot.scales)  # sums of 16 codes where that many have a scale, else of 32
    beside = np.empty((tokens, 0), np.float32) if x.sums is None else x.sums
    numbers = blocks if x.sums is None else 2 * blocks
    made = Packed(
        scratch("codes", (chunks, tiles, CHUNK * tile), np.int8),
        scratch("scales", (chunks, tiles, numbers * 4 * tile), np.float32),
        scratch("sums", (chunks, tiles, halves * 8 * tile), np.int16),
    )
    flip = how.flip if blocks > 1 else 0

    def share(start: int, stop: int) -> None:
        _pack(x.codes, x.scales, beside, tile, flip, *made, start, stop)

    over_rows(share, tiles, max(1, _LEAST_CODES // n // tile))
    return made


def round_activations(x: NDArray[np.float32], type: TensorType, fours: int = 0) -> Codes | None:
    """The 8-bit codes that a matmul with a weight of `type` sees, or None where the engine keeps floats.

    fours : the first so many tokens are rounded four at a time, which matters to Q8_K only.
    """
    format = type.format
    if not isinstance(format, BlockFormat):
        return None
    return quantize_q8_k(x, fours) if fours and format.activations == Q8_K else RULES[format.activations](x)


def rounded_activations(x: NDArray[np.float32], weight: Weight, routines: Routines = PLAIN) -> Codes | None:
    """The same of a matmul with some weight."""
    parts = [round_activations(part, weight.type, _fours(part, weight, routines)) for part in _batches(x, routines)]
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    found = [part for part in parts if part is not None]
    beside = [part.sums for part in found if part.sums is not None]
    sums = np.concatenate(beside) if beside else None
    return Codes(
        found[0].rule,
        np.concatenate([part.codes for part in found]),
        np.concatenate([part.scales for part in found]),
        sums,
    )


def _fours(x: NDArray[np.float32], weight: Weight, routines: Routines) -> int:
    return len(x) // FOUR * FOUR if routines.in_fours(weight) else 0


def _batches(x: NDArray[np.float32], routines: Routines) -> list[NDArray[np.float32]]:
    most = routines.batch or len(x)
    return [x[start : start + most] for start in range(0, len(x), most)]


def matmul_ggml(
    x: NDArray[np.float32], *weights: Weight, width: int = 8, apart: bool = False, routines: Routines = PLAIN
) -> NDArray[np.float32]:
    """X @ W.T for each weight, side by side: x float32 (tokens, in), weights of shape (out, in).

    width : float lanes of the vectors that llama.cpp was built with. apart : every token is multiplied by itself, as
    with the weights of experts. routines : what decides in which order quantized weights are summed. Returns float32
    (tokens, all outs).
    """
    if len(batches := _batches(x, routines)) > 1:
        each = (matmul_ggml(some, *weights, width=width, apart=apart, routines=routines) for some in batches)
        return np.concatenate(list(each))

    def routine(weight: Weight) -> tuple[TensorType, Dot | None, int]:
        block = isinstance(weight.type.format, BlockFormat)
        return weight.type, routines.dot(weight, len(x)) if block else None, _fours(x, weight, routines)

    found = []
    for (type, dot, fours), some in groupby(weights, routine):
        codes, alike = round_activations(x, type, fours), tuple(some)
        floats = rounded_to(x, type) if codes is None else x
        if codes is None:
            found.append(matmul_floats(floats, alike, width, apart, routines.pairs))
        else:
            found.append(matmul_codes(codes, *alike, dot=dot))
    return joined(found)


def matmul_codes(x: Codes, *weights: Weight, dot: Dot | None = None) -> NDArray[np.float32]:
    """The same for 8-bit activations (tokens, in) and quantized weights of one type.

    dot : the order of sums; that of `ggml_vec_dot_*` where nothing is given.
    """
    format = weights[0].type.format
    assert isinstance(format, BlockFormat)
    multiply, out = product(dot or format.dot), room(weights, len(x.codes), np.float32)
    for some in groups(len(x.codes), _TOGETHER):
        _some_codes(x.of(some), weights, format, multiply, out[some])
    return out


def _some_codes(
    x: Codes,
    weights: tuple[Weight, ...],
    format: BlockFormat,
    multiply: Callable[..., None],
    products: NDArray[np.float32],
) -> None:
    n, laid_out = x.codes.shape[1], packed(x, format)

    def compute(weight: Weight, out: NDArray[np.float32], column: int, start: int, stop: int) -> None:
        multiply(format.number, n, weight.stored, *laid_out, out, column, start, stop)

    side_by_side(weights, products, compute, _LEAST)


def rounded_to(x: NDArray[np.float32], type: TensorType) -> NDArray[np.float32]:
    """X rounded to the weight's float type, as float32 values."""
    format = type.format
    if not isinstance(format, FloatFormat) or format.block.bytes != 2:
        return x
    rounded = np.empty_like(x)
    move = _to_halves if format.exponent == 5 else _to_upper_halves
    by_token(lambda t: move(x[t], rounded[t]), x.shape)
    return rounded


@kernel("void(float32[:, ::1], float32[:, ::1])")
def _to_halves(x: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[t, i] = half_to_float(float_to_half(x[t, i]))


@kernel("void(float32[:, ::1], float32[:, ::1])")
def _to_upper_halves(x: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Round to even on the upper 16 bits; NaN stays NaN (ggml_compute_fp32_to_bf16)."""
    words = out.view(np.uint32)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            word = bits(x[t, i])
            even = word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))
            kept = even if word & np.uint32(0x7FFFFFFF) <= np.uint32(0x7F800000) else word | np.uint32(0x00400000)
            words[t, i] = kept & np.uint32(0xFFFF0000)
