"""Copies that ggml made of unusual weights are explained by their formats; what was done to them besides is not."""

from pathlib import Path

import numpy as np
import pytest

from kernels.weight import TensorType, Weight
from tests.faults.distributions import DISTRIBUTIONS
from tests.faults.storing import packed
from workbench.bisect.weights.check import LIMIT, check_weights
from workbench.bisect.weights.slopes import Groups

RECORDED = np.load(Path(__file__).parents[1] / "golden" / "quantized-weights.npz")
COPIES = [key for key in RECORDED.files if "|" in key]
QUANTIZED = [type.name for type in TensorType if type.block.elements > 1]
FEW_CODES = ("TQ1_0", "TQ2_0", "Q1_0", "Q2_0")  # whose own error is as large as any factor that values do not show
POINTS = [name for name in QUANTIZED if TensorType[name].format.grid is not None]

# Of coarse types: a factor on all values, and how far off it may be found.
FACTORS = {
    "IQ4_NL": (1.03, 0.012),
    "IQ4_XS": (1.03, 0.012),
    "MXFP4": (1.15, 0.08),
    "NVFP4": (1.15, 0.08),
    "Q3_K": (1.1, 0.03),
    "Q2_K": (1.3, 0.22),
}


def source_of(values):
    return Weight("w", TensorType.F32, values.shape, packed(values, TensorType.F32))


def copy_of(key):
    kind, _, type = key.split("|")
    return source_of(RECORDED[kind]), Weight("w", TensorType[type], RECORDED[kind].shape, RECORDED[key])


@pytest.mark.parametrize("key", COPIES)
def test_what_the_engine_made_is_explained(key):
    a, b = copy_of(key)
    found = check_weights(a, b, Groups(rows=4))
    assert found.explained, (found.worst, found.slope, found.spread)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_two_copies_of_one_source_are_explained(kind):
    """Each rounds as it will: neither side's values tell how few there were."""
    values = DISTRIBUTIONS[kind](np.random.default_rng(3), 32, 256)
    types = (TensorType.Q8_0, TensorType.Q6_K, TensorType.Q4_K)
    copies = [Weight("w", type, values.shape, packed(values, type)) for type in types]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert check_weights(copies[a], copies[b]).explained, (types[a], types[b])


@pytest.mark.parametrize("type", [name for name in QUANTIZED if name not in (*POINTS, *FEW_CODES)])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_a_factor_too_small_for_any_single_value_is_found(kind, type):
    """As small as the squared relative error of the type lets it be."""
    factor, off = FACTORS.get(type, (1.02, 0.006))
    values = DISTRIBUTIONS[kind](np.random.default_rng(5), 128, 256)
    copy = Weight("w", TensorType[type], values.shape, packed(values * np.float32(factor), TensorType[type]))
    assert check_weights(source_of(values), copy).slope == pytest.approx(factor, abs=off)


@pytest.mark.parametrize("key", [key for key in COPIES if key.startswith("one outlier")])
def test_a_zeroed_block_is_found_and_no_other(key):
    a, b = copy_of(key)
    rows, size = b.rows.copy(), b.type.block.bytes
    rows[3, :size] = 0
    affected = check_weights(a, Weight("w", b.type, b.shape, rows)).affected
    assert affected[3, : b.type.block.elements // 32].any()
    assert affected.any(axis=1).sum() == 1


@pytest.mark.parametrize("type", POINTS)
@pytest.mark.parametrize("kind", ["eight levels", "ternary"])
def test_what_was_done_to_points_of_a_grid_is_found(type, kind):
    """Rows exchanged, every bit of a block inverted, and a common factor."""
    a, b = copy_of(f"{kind}|two channels|{type}")
    for rows, changed in (
        (b.rows[[1, 0, *range(2, 16)]], [0, 1]),
        (b.rows ^ (np.arange(16) == 5)[:, None] * np.uint8(255), [5]),
    ):
        affected = check_weights(a, Weight("w", b.type, b.shape, np.ascontiguousarray(rows))).affected
        assert np.flatnonzero(affected.any(axis=1)).tolist() == changed
    scaled = source_of(RECORDED[kind] / np.float32(1.6))
    assert check_weights(scaled, b).slope is not None


@pytest.mark.parametrize("type", [name for name in QUANTIZED if TensorType[name].format.fitted])
@pytest.mark.parametrize("factor", [0.45, 2.2])
def test_a_scale_that_no_importances_fit_is_found(type, factor):
    a, b = copy_of(f"one outlier a row|two channels|{type}")
    rows = b.rows.copy()
    scale = rows[5, :2].view(np.float16)
    scale *= np.float16(factor)
    affected = check_weights(a, Weight("w", b.type, b.shape, rows)).affected
    assert affected[5, 0]
    assert affected.sum() == 1


@pytest.mark.parametrize("type", [name for name in QUANTIZED if getattr(TensorType[name].format, "least", None)])
@pytest.mark.parametrize("steps", [-2, 2])
def test_a_least_value_that_no_importances_fit_is_found(type, steps):
    a, b = copy_of(f"one outlier a row|two channels|{type}")
    rows = b.rows.copy()
    d, least = (rows[5, at : at + 2].view(np.float16) for at in b.type.format.factors)
    least += np.float16(steps) * d
    affected = check_weights(a, Weight("w", b.type, b.shape, rows)).affected
    assert affected[5, 0]
    assert affected.sum() == 1


@pytest.mark.parametrize("type", ["Q4_K", "Q5_K"])
@pytest.mark.parametrize("source", ["F32", "Q6_K"])
def test_a_sub_block_without_its_scales_is_not_one_that_importances_have_levelled(source, type):
    values = DISTRIBUTIONS["laplace"](np.random.default_rng(6), 32, 256)
    rows = packed(values, TensorType[type])
    rows[:, [4, 8]] &= 0xC0  # scale and minimum of the first sub-block
    a, b = (
        Weight("w", TensorType[t], values.shape, r)
        for t, r in ((source, packed(values, TensorType[source])), (type, rows))
    )
    affected = check_weights(a, b).affected
    assert affected[:, 0].all()
    assert not affected[:, 1:].any()


def test_a_line_that_half_precision_has_moved_by_as_much_as_a_step_is_explained():
    """Two values of large importance decide the line through all others; its slope is a few units of 2^-24."""
    rng = np.random.default_rng(11)
    x = (2e-6 * rng.standard_normal((2000, 32))).astype(np.float32)
    low, span = x.min(axis=1, keepdims=True), np.ptp(x, axis=1)[:, None]
    codes = np.round((x - low) / span * 15)
    one, other = x[:, :2].T.astype(np.float64)
    steps = codes[:, 1] - codes[:, 0]
    slope = (other - one) / np.where(steps == 0, 1, steps)
    line = np.stack([slope, one - slope * codes[:, 0]], axis=1).astype(np.float16)
    kept = (steps != 0) & (line[:, 0] > 0) & (line[:, 1] <= 0)
    nibbles = (codes[:, :16] + 16 * codes[:, 16:]).astype(np.uint8)
    rows = np.concatenate([line.view(np.uint8), nibbles], axis=1)[kept]
    a, b = source_of(x[kept]), Weight("w", TensorType.Q4_1, x[kept].shape, rows)
    assert kept.sum() > 1000
    assert check_weights(a, b).worst <= LIMIT
