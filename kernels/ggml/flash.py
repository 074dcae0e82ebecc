"""Flash attention as llama.cpp's CPU backend computes it, bit for bit.

ggml-cpu/ops.cpp `ggml_compute_forward_flash_attn_ext_f16_one_chunk` and `..._tiled`.

K and V are halves, whatever the cache keeps. Fewer than 64 tokens at once: queries are halves too, and every key in
turn changes a running maximum, sum and mixture of values, which is kept in halves. From 64 on queries, sums and
mixtures are float32, and 64 keys are taken at a time.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from kernels.c_library import expf
from kernels.ggml.attention import single
from kernels.ggml.exponential import powers_and_sum
from kernels.ggml.order import ONE, WIDTHS, dot
from kernels.ggml.sums import LANES, weighted_sum
from kernels.kinds.attention import Attention
from kernels.machine.compiler import helper, kernel
from kernels.machine.memory import lent
from kernels.machine.operations import fma, half
from kernels.machine.parallel import over_rows

_TILE = 64  # queries from which on tiles are used, and keys of a tile

Floats = NDArray[np.float32]

_SIGNATURE = (
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], UniTuple(int64, 3), int64[::1], UniTuple(float32, 3),"
    " boolean, UniTuple(int64, 2), float32[::1], float32[:, ::1], UniTuple(int64, 2), int64, int64)"
)


@helper()
def _finished(
    mixed: Floats, largest: np.float32, total: np.float32, sink: np.float32, fused: bool, out: Floats
) -> None:
    """What comes of a mixture of values and its sum, beside a sink; NaN for none.

    fused : the compiler of the engine made one fused product and sum of the sum with the sink's.
    """
    if sink == sink:
        again, own = np.float32(1), np.float32(1)
        if sink > largest:
            again = expf(largest - sink)
            for i in range(out.size):
                mixed[i] *= again
        else:
            own = expf(sink - largest)
        total = fma(total, again, own) if fused else total * again + own
    share = np.float32(0) if total == 0 else np.float32(1) / total
    for i in range(out.size):
        out[i] = mixed[i] * share


def _row_by_row(width: int) -> Callable[..., None]:
    by_dot, chains = weighted_sum(dot(width)), dot(width).chains

    @helper(of=width)
    def of_query(query, keys, values, p, mixed, unseen, seen, scale, cap, sink, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        head = query.size // chains * chains
        by_dot(head, query, 0, keys, (seen - 1) // LANES + 1, keys.shape[1], p)
        largest, total = np.float32(-np.inf), np.float32(0)
        mixed[:] = 0
        for s in range(unseen, seen):
            score = np.float64(p[s])
            for i in range(head, query.size):
                score += np.float64(query[i] * keys[i, s])
            value = np.float32(score) * scale
            if cap > 0:
                value = cap * np.tanh(value)
            again, own = np.float32(1), np.float32(1)
            if value > largest:
                again = expf(largest - value)
                largest = value
                for i in range(out.size):
                    mixed[i] = half(mixed[i] * again)
            else:
                own = expf(value - largest)
            for i in range(out.size):
                mixed[i] = half(fma(values[s, i], own, mixed[i]))
            total = fma(total, again, own)
        _finished(mixed, largest, total, sink, False, out)

    return of_query


def _tile_by_tile(width: int) -> Callable[..., None]:
    one_by_one, powers = weighted_sum(ONE), powers_and_sum(width)

    @helper(of=width)
    def of_query(query, keys, values, p, mixed, unseen, seen, scale, cap, sink, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        one_by_one(query.size, query, 0, keys, (seen - 1) // LANES + 1, keys.shape[1], p)
        largest, total = np.float32(-np.inf), np.float32(0)
        row = np.empty(_TILE, np.float32)
        mixed[:] = 0
        for start in range(unseen // _TILE * _TILE, seen, _TILE):
            row[:] = -np.inf
            most = largest
            for s in range(max(start, unseen), min(start + _TILE, seen)):
                value = p[s] * scale
                if cap > 0:
                    value = np.tanh(value) * cap
                row[s - start] = value
                most = max(most, value)
            if most > largest:
                again = expf(largest - most)
                for i in range(out.size):
                    mixed[i] *= again
                total *= again
            largest = most
            total = np.float32(np.float64(total) + powers(row, largest, _TILE))
            for s in range(max(start, unseen), min(start + _TILE, seen)):
                for i in range(out.size):
                    mixed[i] = fma(values[s, i], row[s - start], mixed[i])
        _finished(mixed, largest, total, sink, True, out)

    return of_query


def _compiled(width: int, tiled: bool) -> Callable[..., None]:
    of_query, halves = (_tile_by_tile if tiled else _row_by_row)(width), not tiled

    @kernel(_SIGNATURE, of=(width, tiled))
    def flash(
        q: Floats,
        k: Floats,
        v: Floats,
        sizes: tuple[int, int, int],  # channels of a head of k and of v, heads of q for each of those
        places: NDArray[np.int64],  # channels of a head of k in the order of their sum
        factors: tuple[np.float32, np.float32, np.float32],  # of queries and of scores, and cap or 0
        causal: bool,
        sight: tuple[int, int],  # window and chunk
        sinks: Floats,
        out: Floats,
        queries: tuple[int, int],  # the first, and the one after the last
        start: int,
        stop: int,
    ) -> None:
        (head, value, group), (before, scale, cap), (window, chunk) = sizes, factors, sight
        tokens = queries[1] if causal else q.shape[0]
        room = (tokens + LANES - 1) // LANES * LANES
        keys, values = np.zeros((head, room), np.float32), np.empty((tokens, value), np.float32)
        p, mixed, query = np.empty(room, np.float32), np.empty(value, np.float32), np.empty(head, np.float32)
        for shared in range(start, stop):
            for s in range(tokens):
                for i in range(head):
                    keys[i, s] = half(k[s, shared * head + places[i]])
                for i in range(value):
                    values[s, i] = half(v[s, shared * value + i])
            for number in range(shared * group, (shared + 1) * group):
                sink = sinks[number] if sinks.size else np.float32(np.nan)
                for t in range(*queries):
                    seen = t + 1 if causal else tokens
                    unseen = max(max(t + 1 - window, t // chunk * chunk), 0)
                    for i in range(head):
                        query[i] = q[t, number * head + places[i]] * before
                        if halves:
                            query[i] = half(query[i])
                    place = out[t, number * value : (number + 1) * value]
                    of_query(query, keys, values, p, mixed, unseen, seen, scale, cap, sink, place)

    return flash


_flash = cache(_compiled)
_flash(WIDTHS[0], False)  # of the usual build and few tokens: compiled with all other kernels


def one_by_one(tokens: int, batch: int) -> NDArray[np.bool_]:
    """Which tokens are computed with queries and sums in halves: those of batches of fewer than 64 (0: all at once)."""
    size, place = batch or tokens, np.arange(tokens)
    return np.minimum(size, tokens - place // size * size) < _TILE


def flash(q: Floats, k: Floats, v: Floats, how: Attention, sinks: Floats | None, width: int, batch: int) -> Floats:
    """What heads see, (tokens, heads * channels of a head of v), as a build with vectors of `width` lanes computes it.

    q (tokens, heads * head_dim); k, v (tokens, kv_heads * channels). sinks (heads,): a score of every head beside those
    of its keys, whose share is lost. batch : the most tokens that are computed at once; 0 for all.
    """
    tokens = len(q)
    out = lent((tokens, how.heads * how.value_size), np.float32)
    q, k, v = (np.ascontiguousarray(x) for x in (q, k, v))
    sizes = how.head_dim, how.value_size, how.heads // how.kv_heads
    before, scale = (how.scale, 1.0) if how.scaled_first else (1.0, how.scale)
    cap = np.float32(how.cap or 0)
    factors = single(before), single(scale) / cap if cap else single(scale), cap
    places = np.arange(how.head_dim)
    if how.adjacent:
        places = np.ascontiguousarray(places.reshape(2, -1).T).reshape(-1)
    sight, scores = (how.window or tokens, how.chunk or tokens), np.empty(0, np.float32) if sinks is None else sinks
    known = q, k, v, sizes, places, factors, how.causal, sight, scores, out
    for first in range(0, tokens, batch or tokens):
        queries = first, min(first + (batch or tokens), tokens)
        over_rows(partial(_flash(width, queries[1] - first >= _TILE), *known, queries), how.kv_heads)
    return out
