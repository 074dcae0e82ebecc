"""Attention as llama.cpp's CPU backend computes it without flash attention, bit for bit.

Scores are sums in the order of `dot`, those of one head alone, whose queries lie side by side, in that of `tile`; what
the softmax makes of them is multiplied with the values in that of `tile`, for a token alone in that of `dot`
(ggml-cpu.c `ggml_compute_forward_mul_mat`, ops.cpp `ggml_compute_forward_soft_max_f32`).

A cache of halves makes halves of what is multiplied with it too: of queries, and of shares. The queries are laid out
side by side then, so that scores are tiled.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.ggml.order import WIDTHS, dot, tile
from kernels.ggml.softmax import shares
from kernels.ggml.sums import LANES, weighted_sum
from kernels.kinds.attention import Attention
from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.operations import half
from kernels.machine.parallel import over_rows

_PADDED = 256  # keys that llama.cpp's cache is looked at together
_SCORES = 1 << 24  # of a head in one call of a kernel, which nothing can interrupt: some tenths of a second

_STEP = max(dot(width).chains for width in WIDTHS)

Floats = NDArray[np.float32]


class Run(NamedTuple):
    """How llama.cpp computes: the lanes of its vectors, whether its cache keeps K and V as halves, and in batches.

    batch : the most tokens at once; 0 for all.
    """

    width: int
    halves: tuple[bool, bool] = (False, False)
    batch: int = 0


class Sums(NamedTuple):
    """Which sums are those of tiles, and over how many keys the softmax and the sums of values go.

    half_queries, half_shares : whether they are rounded to halves first.
    """

    scores_tiled: bool
    values_tiled: bool
    keys: int
    half_queries: bool
    half_shares: bool


def sums_of(how: Attention, tokens: int, known: int, run: Run) -> Sums:
    """The routines that are taken for so many tokens at once. known : tokens, theirs and those before."""
    keys = -(-known // _PADDED) * _PADDED if how.causal else known  # where tokens see those behind, nothing is kept
    scores = tokens > 1 and (run.halves[0] or how.heads == 1) and keys % 4 == 0 and how.head_dim % run.width == 0
    values = tokens > 1 and how.value_size % 4 == 0 and keys % run.width == 0
    return Sums(scores, values, keys, *run.halves)


def _compiled(width: int) -> Callable[..., None]:
    by_dot, by_tile, softmax = weighted_sum(dot(width)), weighted_sum(tile(width)), shares(width)

    @kernel(
        "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], UniTuple(int64, 3), int64[::1], "
        "UniTuple(float32, 3), boolean, UniTuple(int64, 2), float32[::1], "
        "Tuple((boolean, boolean, int64, boolean, boolean)), float32[:, ::1], UniTuple(int64, 3), int64, int64)",
        of=width,
    )
    def attention(
        q: Floats,
        k: Floats,
        v: Floats,
        sizes: tuple[int, int, int],  # channels of a head of k and of v, heads of q for each of those
        places: NDArray[np.int64],  # channels of a head of k in the order of their sum
        factors: tuple[np.float32, np.float32, np.float32],  # of queries and of scores, and cap or 0
        causal: bool,
        sight: tuple[int, int],  # window and chunk
        sinks: Floats,
        sums: tuple[bool, bool, int, bool, bool],  # `Sums`
        out: Floats,
        queries: tuple[int, int, int],  # the first, the one after the last, and how many at once
        start: int,
        stop: int,
    ) -> None:
        (head, value, group), (before, scale, cap) = sizes, factors
        (window, chunk), (scores_tiled, values_tiled, looked_at, half_queries, half_shares) = sight, sums
        (first, last, block), step = queries, LANES if values_tiled else _STEP
        tokens = last if causal else q.shape[0]
        room = (tokens + _STEP - 1) // _STEP * _STEP
        vectors = (value + LANES - 1) // LANES
        keys, values = np.zeros((head, room), np.float32), np.zeros((room, vectors * LANES), np.float32)
        p, mixed = np.empty(room, np.float32), np.empty(vectors * LANES, np.float32)
        query = np.empty(head, np.float32)
        blocks = (last - first + block - 1) // block
        for unit in range(start, stop):
            shared, begin = unit // blocks, first + unit % blocks * block
            for s in range(tokens):
                for i in range(head):
                    keys[i, s] = k[s, shared * head + places[i]]
                for i in range(value):
                    values[s, i] = v[s, shared * value + i]
            for number in range(shared * group, (shared + 1) * group):
                sink = sinks[number] if sinks.size else np.float32(np.nan)
                for t in range(begin, min(begin + block, last)):
                    seen = t + 1 if causal else tokens
                    unseen = max(max(t + 1 - window, t // chunk * chunk), 0)
                    for i in range(head):
                        query[i] = q[t, number * head + places[i]] * before
                        if half_queries:
                            query[i] = half(query[i])
                    if scores_tiled:
                        by_tile(head, query, 0, keys, (seen - 1) // LANES + 1, room, p)
                    else:
                        by_dot(head, query, 0, keys, (seen - 1) // LANES + 1, room, p)
                    for s in range(unseen, seen):
                        p[s] *= scale
                    if cap > 0:
                        for s in range(unseen, seen):
                            p[s] = np.tanh(p[s] * (np.float32(1) / cap)) * cap
                    end = min((seen + step - 1) // step * step, looked_at)  # whatever follows adds nothing
                    softmax(p, unseen, seen, end, sink)
                    if half_shares:
                        for s in range(end):
                            p[s] = half(p[s])
                    if values_tiled:
                        by_tile(end, p, 0, values, vectors, vectors * LANES, mixed)
                    else:
                        by_dot(end, p, 0, values, vectors, vectors * LANES, mixed)
                    for i in range(value):
                        out[t, number * value + i] = mixed[i]

    return attention


def single(scale: float) -> np.float32:
    """A scale in float32: where it is one over the root of a whole number, root and division are rounded both."""
    number = round(scale**-2)
    if number and scale == number**-0.5:
        return np.float32(np.float32(1) / np.sqrt(np.float32(number)))
    return np.float32(scale)


_attention = cache(_compiled)
_attention(WIDTHS[0])  # of the usual build: compiled with all other kernels


def attention(q: Floats, k: Floats, v: Floats, how: Attention, sinks: Floats | None, run: Run) -> Floats:
    """What heads see, (tokens, heads * channels of a head of v).

    q (tokens, heads * head_dim); k, v (tokens, kv_heads * channels). sinks (heads,): a score of every head beside those
    of its keys, whose share is lost.

    What the mask takes away is still multiplied by 0, and that is NaN of a key or value that is NaN or infinite; on
    every path here such a lost value reaches only tokens that see it, so that it hides no mistake before it.
    """
    lost = np.asarray(~np.isfinite(k).all(axis=1) | ~np.isfinite(v).all(axis=1))
    if not how.causal or not lost.any():
        return _all_tokens(q, k, v, how, sinks, run)
    known_k, known_v = (np.where(lost[:, None], np.float32(0), x) for x in (k, v))
    out, before = _all_tokens(q, k, v, how, sinks, run), _all_tokens(q, known_k, known_v, how, sinks, run)
    first = int(lost.argmax())
    out[:first] = before[:first]
    return out


def _all_tokens(q: Floats, k: Floats, v: Floats, how: Attention, sinks: Floats | None, run: Run) -> Floats:
    tokens = len(q)
    out = lent((tokens, how.heads * how.value_size), np.float32)
    k, v = (x.astype(np.float16).astype(np.float32) if kept else x for x, kept in zip((k, v), run.halves, strict=True))
    q, k, v = (np.ascontiguousarray(x) for x in (q, k, v))
    sizes = how.head_dim, how.value_size, how.heads // how.kv_heads
    one, scale = np.float32(1), single(how.scale)
    factors = (scale, one, np.float32(how.cap or 0)) if how.scaled_first else (one, scale, np.float32(how.cap or 0))
    places = np.arange(how.head_dim)
    if how.adjacent:
        places = np.ascontiguousarray(places.reshape(2, -1).T).reshape(-1)
    sight = how.window or tokens, how.chunk or tokens
    scores = np.empty(0, np.float32) if sinks is None else sinks
    for first in range(0, tokens, run.batch or tokens):
        last = min(first + (run.batch or tokens), tokens)
        block = min(max(_SCORES // tokens, 1), last - first)
        blocks = -(-(last - first) // block)
        sums = sums_of(how, last - first, last, run)
        known = q, k, v, sizes, places, factors, how.causal, sight, scores, sums, out, (first, last, block)
        over_rows(partial(_attention(run.width), *known), how.kv_heads * blocks, most=1 if blocks > 1 else None)
    return out
