"""K-quantizers in NumPy, written down from the outline of ggml-quants.c (`quantize_row_q4_K_ref`, `..._q6_K_ref`).

All searches are done for all sub-blocks at once; sums are in float64, so that a code on the edge of two may fall on the
other side than in C. The packed blocks are what a reader gets from any converter.
"""

import numpy as np

from kernels.weight import TensorType


def quantize(values, type):
    """uint8 rows of a float matrix whose rows are whole blocks of 256, for Q4_K, Q5_K and Q6_K."""
    blocks = np.asarray(values, np.float64).reshape(-1, 256)
    packed = {TensorType.Q4_K: _q4_k, TensorType.Q5_K: _q5_k, TensorType.Q6_K: _q6_k}[TensorType(type)](blocks)
    return np.ascontiguousarray(packed).reshape(len(values), -1)


def _fit_with_min(x, top, start, steps):
    """Scale and offset (both >= 0) of each row x: a grid of candidate scales, each with its least-squares fit."""
    weights = np.sqrt(np.square(x).mean(axis=1, keepdims=True)) + np.abs(x)
    low, high = np.minimum(x.min(axis=1, keepdims=True), 0), x.max(axis=1, keepdims=True)
    span = np.where(high > low, high - low, 1)
    best = None
    for k in range(-1, steps + 1):
        inverse = top / span if k < 0 else (start + 0.1 * k + top) / span
        codes = np.clip(np.round(inverse * (x - low)), 0, top)
        if k < 0:
            scale, offset = span / top, low
        else:
            w, l1, l2, wx, xl = ((weights * t).sum(axis=1, keepdims=True) for t in (1, codes, codes**2, x, x * codes))
            d = w * l2 - l1 * l1
            with np.errstate(divide="ignore", invalid="ignore"):
                scale, offset = (w * xl - wx * l1) / d, (l2 * wx - l1 * xl) / d
                positive = offset > 0
                scale, offset = np.where(positive, xl / l2, scale), np.where(positive, 0, offset)
            scale, offset = np.where(d > 0, scale, span / top), np.where(d > 0, offset, low)
        error = (weights * np.square(scale * codes + offset - x)).sum(axis=1, keepdims=True)
        if best is None:
            best = [error, scale, offset]
        else:
            better = error < best[0]
            best = [np.where(better, new, old) for new, old in zip((error, scale, offset), best, strict=True)]
    _, scale, offset = best
    return np.where(high > low, scale, 0)[:, 0], -np.where(high > low, offset, low)[:, 0]


def _half(x):
    return x.astype(np.float16)


def _with_scales_and_mins(blocks, top, start, steps):
    sub = blocks.reshape(-1, 8, 32)
    scale, offset = (part.reshape(-1, 8) for part in _fit_with_min(sub.reshape(-1, 32), top, start, steps))
    halves, sixes = [], []
    for part in (scale, offset):
        largest = part.max(axis=1, keepdims=True)
        sixes.append(np.minimum(np.round(part * np.where(largest > 0, 63 / np.where(largest > 0, largest, 1), 0)), 63))
        halves.append(_half(largest / 63))
    step, shift = (h.astype(np.float64) * s for h, s in zip(halves, sixes, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.clip(np.round((sub + shift[:, :, None]) / step[:, :, None]), 0, top)
    codes = np.where(step[:, :, None] == 0, 0, codes).astype(np.uint8)
    sc, mn = (s.astype(np.uint8) for s in sixes)
    low = np.concatenate([sc[:, :4] | (sc[:, 4:] >> 4) << 6, mn[:, :4] | (mn[:, 4:] >> 4) << 6], axis=1)
    scales = np.concatenate([low, (sc[:, 4:] & 15) | (mn[:, 4:] & 15) << 4], axis=1)
    head = np.concatenate([h.view(np.uint8) for h in halves] + [scales], axis=1)
    return head, codes


def _nibbles(codes):
    pairs = codes.reshape(-1, 4, 2, 32)
    return (pairs[:, :, 0] & 15 | (pairs[:, :, 1] & 15) << 4).reshape(-1, 128)


def _q4_k(blocks):
    head, codes = _with_scales_and_mins(blocks, 15, -1.0, 20)
    return np.concatenate([head, _nibbles(codes)], axis=1)


def _q5_k(blocks):
    head, codes = _with_scales_and_mins(blocks, 31, -0.5, 15)
    high = (codes >> 4 << np.arange(8, dtype=np.uint8)[None, :, None]).sum(axis=1).astype(np.uint8)
    return np.concatenate([head, high, _nibbles(codes)], axis=1)


def _q6_k(blocks):
    sub = blocks.reshape(-1, 16)
    largest = np.take_along_axis(sub, np.abs(sub).argmax(axis=1)[:, None], axis=1)
    safe = np.where(largest == 0, 1, largest)
    scale, best = np.zeros(len(sub)), np.full(len(sub), -1.0)
    for k in (0, *(n for n in range(-9, 10) if n)):
        codes = np.clip(np.round(-(32 + 0.1 * k) / safe * sub), -32, 31)
        lx, l2 = (sub**3 * codes).sum(axis=1), (np.square(sub * codes)).sum(axis=1)
        fit = np.where(l2 > 0, lx / np.where(l2 > 0, l2, 1), 0)
        better = fit * lx > best
        scale, best = np.where(better, fit, scale), np.where(better, fit * lx, best)
    scale = np.where(largest[:, 0] == 0, 0, scale).reshape(-1, 16)
    top = np.take_along_axis(scale, np.abs(scale).argmax(axis=1)[:, None], axis=1)
    inverse = np.where(top == 0, 0, -128 / np.where(top == 0, 1, top))
    d = _half(np.where(inverse == 0, 0, 1 / np.where(inverse == 0, 1, inverse)))
    eights = np.minimum(np.round(inverse * scale), 127).astype(np.int8)
    step = (d.astype(np.float64) * eights)[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.clip(np.round(blocks.reshape(-1, 16, 16) / step), -32, 31)
    codes = (np.where(step == 0, 0, codes) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.stack([codes[:, :, p] & 15 | (codes[:, :, p + 2] & 15) << 4 for p in (0, 1)], axis=2)
    high = sum(((codes[:, :, p] >> 4) << (2 * p)).astype(np.uint8) for p in range(4))
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), eights.view(np.uint8), d.view(np.uint8)]
    return np.concatenate(parts, axis=1)
