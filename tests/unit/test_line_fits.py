"""Whether one line explains the codes of a block, against every ratio at which its two sides can meet."""

from dataclasses import replace
from itertools import combinations

import gguf
import numpy as np

from kernels.weight import TensorType, Weight
from tests.random_weights import random_rows
from workbench.bisect.weights.check import check, check_weights, excess_of
from workbench.bisect.weights.line_fits import _LEAST, _MOST, _one_line_explains, line_fits
from workbench.bisect.weights.steps import Stored

LIMIT = 1.02


def literal(x, v, own, half, no_top, no_bottom):
    """The longest interval of offsets is at an end of the range, or where two bounds of a side cross."""
    values = list(zip(x, v, own, half, no_top, no_bottom, strict=True))
    tops = [(a + o, h - b) for a, b, o, h, free, _ in values if not free]
    bottoms = [(a - o, -h - b) for a, b, o, h, _, free in values if not free]
    ratios = [_LEAST, _MOST]
    for bounds in (tops, bottoms):
        ratios += [(a - c) / (d - b) for (a, b), (c, d) in combinations(bounds, 2) if b != d]
    return max(
        min(a + r * b for a, b in tops) - max(a + r * b for a, b in bottoms) for r in ratios if _LEAST <= r <= _MOST
    )


def test_a_line_is_found_where_there_is_one():
    rng = np.random.default_rng(0)
    blocks = 60
    fitted = Stored.of(Weight("w", TensorType.Q4_1, (blocks, 32), random_rows(rng, TensorType.Q4_1, blocks, 32)))
    off = rng.uniform(-1, 1, (blocks, 32)) * rng.uniform(0.5, 1.6, (blocks, 1)) * fitted.width
    values = (fitted.values + off) * rng.uniform(0.4, 3, (blocks, 1)) + rng.normal(0, 0.1, (blocks, 1))
    values = values.astype(np.float32)
    source = Stored.of(Weight("w", TensorType.F32, values.shape, values.view(np.uint8)))
    own, half = (LIMIT * side.width.astype(np.float64) * np.ones((blocks, 32)) for side in (source, fitted))
    free = (source.cut(sign) | fitted.cut(-sign) for sign in (1, -1))
    parts = (values.astype(np.float64), fitted.values.astype(np.float64), own, half, *free)
    expected = [literal(*(part[n] for part in parts)) >= 0 for n in range(blocks)]
    found = _one_line_explains(source, fitted, LIMIT)
    assert found.tolist() == expected
    assert 0 < found.sum() < blocks


def test_a_line_that_was_held_at_zero_may_be_steeper_than_all_values_but_the_important_ones():
    """As ggml fits weights of one sign: d is decided by two values, the others become a fifth larger."""
    rng = np.random.default_rng(1)
    step, importance = np.float32(0.01), np.where(np.arange(32) < 2, 1e8, 1.0)
    values = rng.uniform(0, 14.4, (40, 32)).astype(np.float32) * step
    values[:, :2] = [2.45 * step, 2.4 * step]
    codes = np.round(values / step)
    d = (importance * values * codes).sum(axis=1) / (importance * codes**2).sum(axis=1)
    packed = np.zeros((40, 20), np.uint8)
    packed[:, :2] = d.astype(np.float16)[:, None].view(np.uint8)
    packed[:, 4:] = codes[:, :16].astype(np.uint8) | codes[:, 16:].astype(np.uint8) << 4
    source = Stored.of(Weight("w", TensorType.F32, values.shape, values.view(np.uint8)))
    fitted = Stored.of(Weight("w", TensorType.Q4_1, (40, 32), packed))
    beyond = (excess_of(source, fitted) > LIMIT).any(axis=1)
    assert beyond.mean() > 0.9
    assert line_fits(source, fitted, 1.3)[beyond].all()
    larger = replace(fitted, values=fitted.values * np.float32(1.6), width=fitted.width * np.float32(1.6))
    assert not line_fits(source, larger, 1.3).any()  # no value lies above such a line


def test_a_few_blocks_that_a_fit_explains_say_nothing_of_the_errors_of_all_others():
    rng = np.random.default_rng(2)
    step, least, few = 2.0**-7, -3 * 2.0**-7, 4
    offsets = rng.uniform(0, 15, (few * 1024, 32))
    offsets[:few, :2] = 0.325, 0.675  # the important ones, which alone decide the line of these blocks
    codes, d, m = np.round(offsets), np.full(len(offsets), step), np.full(len(offsets), least)
    d[:few], m[:few] = 0.35 * step, 0.325 * step + least
    packed = np.zeros((len(offsets), 20), np.uint8)
    packed[:, :4] = np.stack([d, m], axis=1).astype(np.float16).view(np.uint8)
    packed[:, 4:] = codes[:, :16].astype(np.uint8) | codes[:, 16:].astype(np.uint8) << 4
    values = (offsets * step + least).astype(np.float32)
    source = Stored.of(Weight("w", TensorType.F32, values.shape, values.view(np.uint8)))
    fitted = Stored.of(Weight("w", TensorType.Q4_1, values.shape, packed))
    assert excess_of(source, fitted)[0].max() > 20
    found = check(source, fitted)
    assert found.explained
    assert found.spread < 0.4  # 1/3 of errors that are spread evenly; these blocks alone would make it 1.1


def test_scales_that_are_all_too_small_are_told_though_a_fit_explains_every_block():
    values = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_1).reshape(-1, 20)
    d = packed[:, :2].view(np.float16)
    d *= 0.97
    wrong = Weight("w", TensorType.Q4_1, values.shape, packed.reshape(64, -1))
    assert not check_weights(Weight("w", TensorType.F32, values.shape, values.view(np.uint8)), wrong).explained
