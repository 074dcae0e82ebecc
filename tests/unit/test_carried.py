"""Copies by GPTQ, which moves values still to be rounded, are healthy; what is wrong besides is not excused."""

from functools import partial

import numpy as np
import pytest

from kernels.packed.codes import as_bytes
from kernels.packed.numbers import Grid, levels
from kernels.packed.packed import Packed
from kernels.weight import TensorType, Weight
from tests.faults.models import plain
from tests.hf_files import float_tensor
from tests.memory_model import MemoryModel
from workbench.bisect.weights.causes import weight_causes
from workbench.bisect.weights.check import check_weights

NAME, COLUMNS, ROWS = "model.layers.0.mlp.up_proj.weight", 256, 48
KINDS = {"plain": (1.0, False), "steep": (2.0, False), "outliers": (2.0, True), "flat outliers": (1.0, True)}


def hessian(rng, power, outliers):
    """Of activations whose strengths fall off by a power, in a random basis, some channels 30 times as strong."""
    basis = np.linalg.qr(rng.standard_normal((COLUMNS, COLUMNS)))[0]
    found = basis * np.arange(1, COLUMNS + 1) ** -power @ basis.T
    strength = np.exp(1.2 * rng.standard_normal(COLUMNS)) if outliers else np.ones(COLUMNS)
    strength[rng.choice(COLUMNS, 4)] *= 30 if outliers else 1
    return found * np.outer(strength, strength)


def gptq(values, found, bits, group, in_order):
    """Codes, scales and zero points of every value, and its group: Frantar 2023, a column at a time."""
    found = found + 0.01 * np.mean(np.diag(found)) * np.eye(COLUMNS)
    order = np.argsort(-np.diag(found)) if in_order else np.arange(COLUMNS)
    left, top = values[:, order].astype(np.float64), 2**bits - 1
    inverse = np.linalg.cholesky(np.linalg.inv(found[order][:, order])).T
    codes, scales, zeros = (np.zeros(values.shape) for _ in range(3))
    for i in range(COLUMNS):
        if i % group == 0:
            low, high = (f(left[:, i : i + group], axis=1) for f in (np.min, np.max))
            scale = ((np.maximum(high, 0) - np.minimum(low, 0)) / top).astype(np.float16).astype(np.float64)
            zero = np.clip(np.round(-np.minimum(low, 0) / scale), 0, top)
        codes[:, i] = np.clip(np.round(left[:, i] / scale) + zero, 0, top)
        scales[:, i], zeros[:, i] = scale, zero
        error = (left[:, i] - (codes[:, i] - zero) * scale) / inverse[i, i]
        left[:, i:] -= np.outer(error, inverse[i, i:])
    back = np.argsort(order)
    return tuple(x[:, back] for x in (codes, scales, zeros)), back // group


def copy_of(codes, scales, zeros, bits):
    every = np.arange(COLUMNS)
    stored = Packed(
        name="GPTQ",
        size=codes.shape,
        codes=partial(as_bytes, codes.astype(np.uint8)),
        levels=levels(f"U{bits}"),
        scales=Grid(scales.astype(np.float16), "F16"),
        groups=every,
        zeros=Grid(zeros.astype(np.int16), "I16"),
        kept="F16",
        carried=True,
    )
    return Weight(NAME, TensorType.F32, codes.shape, stored)


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(2)
    return (0.02 * rng.standard_normal((ROWS, COLUMNS)) * np.exp(0.3 * rng.standard_normal((ROWS, 1)))).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("bits", "group", "in_order"), [(2, 64, False), (3, 64, True), (4, 128, False), (4, 32, True), (8, 128, False)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_healthy_and_its_faults_are_not(values, kind, bits, group, in_order):
    source = float_tensor(NAME, values)
    (codes, scales, zeros), _ = gptq(values, hessian(np.random.default_rng(3), *KINDS[kind]), bits, group, in_order)
    found = check_weights(source, copy_of(codes, scales, zeros, bits))
    assert found.explained, (found.worst, found.slope, found.spread)
    assert found.carried  # which the bisection says in a note
    swapped = codes.reshape(ROWS, -1, 2)[:, :, ::-1].reshape(codes.shape)
    wrong = [copy_of(codes, scales, zeros + 1, bits), copy_of(swapped, scales, zeros, bits)]
    if bits > 3:
        rows = np.r_[1, 0, 2:ROWS]
        wrong += [copy_of(codes, 1.1 * scales, zeros, bits), copy_of(codes[rows], scales, zeros[rows], bits)]
    for copy in wrong:
        assert not check_weights(source, copy).explained


@pytest.mark.parametrize("kind", ["plain", "steep", "outliers"])
@pytest.mark.parametrize("damage", ["noise", "zeros"])
def test_a_damaged_block_of_a_row_is_not_excused_by_what_gptq_leaves(values, kind, damage):
    """It is less far off than a carried error may be, but rows beside it are not off at all there."""
    (codes, scales, zeros), _ = gptq(values, hessian(np.random.default_rng(3), *KINDS[kind]), 3, 64, False)
    here = np.s_[7, 32:64]
    codes[here] = np.random.default_rng(4).integers(0, 8, 32) if damage == "noise" else zeros[here]
    found = check_weights(float_tensor(NAME, values), copy_of(codes, scales, zeros, 3))
    assert not found.explained
    assert found.carried


def test_a_zero_point_that_is_off_is_named_beside_the_source(values):
    (codes, scales, zeros), _ = gptq(values, hessian(np.random.default_rng(3), 2.0, True), 4, 128, False)
    models = [
        MemoryModel(plain("qwen2-mha").config, {NAME: weight})
        for weight in (float_tensor(NAME, values), copy_of(codes, scales, zeros + 1, 4))
    ]
    causes = weight_causes(NAME, *models, check_weights(*(model.weight(NAME) for model in models)))
    assert (causes[0].cause, causes[0].explained) == ("zero_point", True), causes[0]


def test_values_of_the_codes_are_no_source_from_which_errors_were_carried(values):
    """A converter that takes scales of the group after them differs by less than GPTQ does."""
    (codes, scales, zeros), _ = gptq(values, hessian(np.random.default_rng(3), 1.0, False), 4, 32, False)
    misread = (codes - zeros) * (0.8 * scales + 0.2 * np.roll(scales, -32, axis=1))
    copy = copy_of(codes, scales, zeros, 4)
    assert check_weights(float_tensor(NAME, values), copy).explained
    assert not check_weights(float_tensor(NAME, misread), copy).explained
