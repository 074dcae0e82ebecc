"""Mistakes of the rotary embedding: the record shows by which angle every pair of channels was turned."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels import ops
from kernels.config import ModelConfig
from workbench.bisect.runtime_mistakes.mistake import FITTED, FREE, NAMED, Mistake, Question, Values

_BASES = (1e3, 1e4, 1e5, 5e5, 1e6, 1e7)


def rope_mistakes(q: Question) -> Iterator[Mistake]:
    """Another base, another pairing, other positions, or none at all."""
    x, config = rotated_input(q), q.config
    positions = q.at.positions().astype(np.float64)
    yield from _bases(q, x, positions)
    yield from _pairings(q, x, positions)
    yield from _positions(q, x, positions)
    if config.rope_factors is not None:
        plain = replace(config, rope_factors=None, rope_attention_factor=1.0)
        yield Mistake("rope_theta", "config", "the rotary scaling is left out", turned(x, positions, plain))
    if config.rope_attention_factor != 1:
        short = replace(config, rope_attention_factor=1.0)
        words = f"the attention factor {config.rope_attention_factor:.6g} of the rotary scaling is left out"
        yield Mistake("attention_scale", "config", words, turned(x, positions, short))
    yield from _found_frequencies(q, x, positions)


def rotated_input(q: Question) -> Values:
    """The part of Q|K|V that the stage rotates."""
    size = q.config.q_size
    part = slice(0, size) if q.stage == "q_post_rope" else slice(size, size + q.config.kv_size)
    return q.x["qkv_bias"][:, part]


def turned(x: Values, positions: Values, config: ModelConfig) -> Values:
    """X (tokens, channels) rotated as for the given positions, which need not be whole."""
    frequencies = ops.rope_angles_f64(np.ones(1, dtype=np.int64), config)
    return np.asarray(ops.rotate(x, positions[:, None] * frequencies, config), dtype=np.float64)


def _bases(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    fitted = _fitted_base(q, x)
    near = () if fitted is None else (float(f"{fitted:.3g}"), fitted)
    for rank, bases in ((NAMED, _BASES), (FITTED, near)):
        for base in bases:
            if base != q.config.rope_theta and base > 1:
                words = f"the rotary base is {base:.6g} in place of {q.config.rope_theta:.6g}"
                predicted = turned(x, positions, replace(q.config, rope_theta=base))
                yield Mistake("rope_theta", "config", words, predicted, rank=rank)


def _pairings(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    other = replace(q.config, rope_type="norm" if q.config.rope_type == "neox" else "neox")
    words = "the other channels of a head rotate together"
    yield Mistake("rope_type", "config", words, turned(x, positions, other))
    yield Mistake("rope_type", "config", f"{words}, in the opposite direction", turned(x, -positions, other))
    size = q.config.head_dim
    for share in (2, 4):
        inner = size // share
        if inner >= 4 and inner % 2 == 0:
            words = f"only the first {inner} channels of a head are rotated"
            heads = x.reshape(len(x), -1, size).copy()
            factors = None if q.config.rope_factors is None else q.config.rope_factors[: inner // 2]
            part = replace(q.config, head_dim=inner, rope_factors=factors)
            rotated = turned(np.ascontiguousarray(heads[..., :inner]).reshape(len(x), -1), positions, part)
            heads[..., :inner] = rotated.reshape(len(x), -1, inner)
            yield Mistake("rope_type", "config", words, heads.reshape(x.shape))


def _positions(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    config = q.config
    yield Mistake("rope_position", "graph", "nothing is rotated", x)
    yield Mistake("rope_position", "graph", "rotated in the opposite direction", turned(x, -positions, config))
    yield Mistake("rope_position", "graph", "positions run backwards", turned(x, positions[::-1], config))
    for shift in (1, -1, 2, len(positions)):
        yield Mistake(
            "rope_position", "graph", f"positions are off by {shift:+d}", turned(x, positions + shift, config)
        )
    for factor in (2.0, 4.0, 8.0, 0.5):
        words = f"positions are divided by {factor:g}, as linear scaling does"
        yield Mistake("rope_position", "graph", words, turned(x, positions / factor, config))
    found = _found_positions(q, x)
    if found is not None:
        shown = ", ".join(f"{p:g}" for p in found[:6]) + (", …" if len(found) > 6 else "")
        words = f"tokens are rotated as if their positions were {shown}"
        yield Mistake("rope_position", "graph", words, turned(x, found, config), rank=FITTED)


def _phases(q: Question, x: Values) -> NDArray[np.complex128]:
    """Sum over the heads of what turns every pair of x into that of y, complex (tokens, head_dim / 2)."""
    d = q.config.head_dim
    before, after = (z.reshape(len(z), -1, d) for z in (x, q.y))
    if q.config.rope_type == "neox":
        pairs = [z[..., : d // 2] + 1j * z[..., d // 2 :] for z in (before, after)]
    else:
        pairs = [z[..., 0::2] + 1j * z[..., 1::2] for z in (before, after)]
    return np.asarray((pairs[1] * pairs[0].conj()).sum(axis=1))


def _found_positions(q: Question, x: Values) -> Values | None:
    """The position that every token was rotated by, coarse from the slow pairs, refined by the faster ones."""
    frequencies = ops.rope_angles_f64(np.ones(1, dtype=np.int64), q.config)[0]
    angles = np.angle(_phases(q, x))
    order = np.argsort(frequencies)
    found = angles[:, order[0]] / frequencies[order[0]]
    for pair in order[1:]:
        turns = np.round((found * frequencies[pair] - angles[:, pair]) / (2 * np.pi))
        found = (angles[:, pair] + 2 * np.pi * turns) / frequencies[pair]
    halves = np.round(found * 4) / 4
    return halves if np.isfinite(halves).all() else None


def _fitted_base(q: Question, x: Values) -> float | None:
    """The base that the angles of the second token imply; slow pairs, whose angles are small, count little."""
    d = q.config.head_dim
    if len(x) < 2 or d < 4:
        return None
    angles, exponents = np.angle(_phases(q, x)[1]), np.arange(d // 2) * (2 / d)
    visible = (angles > 1e-6) & (angles < 3) & (exponents > 0)
    if not visible.any():
        return None
    angles, exponents = angles[visible], exponents[visible]
    weights = np.square(angles)
    slope = -float((weights * exponents * np.log(angles)).sum() / (weights * exponents**2).sum())
    return float(np.exp(slope)) if abs(slope) < 50 else None


def _found_frequencies(q: Question, x: Values, positions: Values) -> Iterator[Mistake]:
    """Any frequencies at all, as long as every token's angle is its position times them, and any length with them."""
    if len(x) < 3:
        return
    found = np.angle(_phases(q, x)[1])
    config = q.config
    with np.errstate(divide="ignore"):
        factors = ops.rope_angles_f64(np.ones(1, dtype=np.int64), replace(config, rope_factors=None))[0] / found
    if np.isfinite(factors).all() and (factors > 0).all():
        found_config = replace(config, rope_factors=tuple(factors.tolist()))
        words = f"the rotary frequencies are divided by {factors.min():.3g} to {factors.max():.3g}"
        yield Mistake("rope_theta", "config", words, turned(x, positions, found_config), rank=FREE)
        if config.rope_factors is None and np.allclose(factors, 1, rtol=1e-4):
            return  # then it is the length alone that differs, which is told by simpler mistakes
        with np.errstate(divide="ignore", invalid="ignore"):
            longer = float(np.linalg.norm(q.y) / np.linalg.norm(x))
        if np.isfinite(longer) and longer > 0:
            words += f", and the output is multiplied by {longer:.6g}"
            predicted = turned(x, positions, replace(found_config, rope_attention_factor=longer))
            yield Mistake("rope_theta", "config", words, predicted, rank=FREE)
