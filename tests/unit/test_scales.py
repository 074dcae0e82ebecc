"""Scales of single blocks, where every value by itself may be a copy."""

import numpy as np
import pytest

from kernels.rows.dequantize import dequantize
from kernels.rows.fields import fields
from kernels.weight import TensorType, Weight
from tests.random_weights import random_rows
from workbench.bisect.weights.check import check_weights, excess_of
from workbench.bisect.weights.points import forgiven
from workbench.bisect.weights.steps import Stored

SHAPE = (6, 512)
TYPES = ("Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")


def source_of(rows, type):
    values = dequantize(Weight("x", type, SHAPE, rows))
    return Weight("x", TensorType.F32, SHAPE, values.view(np.uint8))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("factor", [4, 0.25])
def test_a_block_of_another_scale_is_no_copy(name, factor):
    type = TensorType[name]
    rows = random_rows(np.random.default_rng(3), type, *SHAPE)
    source, wrong, at = source_of(rows, type), rows.copy(), type.block.bytes + type.format.d
    half = wrong[4, at : at + 2].view(np.float16)
    half *= factor
    for sides in ((source, Weight("x", type, SHAPE, wrong)), (Weight("x", type, SHAPE, wrong), source)):
        affected = check_weights(*sides).affected
        size = type.block.elements // 32
        assert affected[4, size : 2 * size].any()
        assert affected.sum() == affected[4, size : 2 * size].sum()
    assert not check_weights(source, Weight("x", type, SHAPE, rows)).affected.any()


def test_signs_cost_what_their_sources_are_beyond_them():
    """Of a sparse tensor the mean is far below the values that make it."""
    values = np.zeros((1, 128), np.float32)
    values[0, 5] = 1.0
    rows = np.concatenate([np.float16([1 / 128]).view(np.uint8), np.full(16, 255, np.uint8)])[None]
    signs = Weight("x", TensorType.Q1_0, (1, 128), rows)
    found = check_weights(Weight("x", TensorType.F32, (1, 128), values.view(np.uint8)), signs)
    assert found.explained
    assert found.cost.sum() == pytest.approx(np.square(Stored.of(signs).values - values).sum(), rel=0.01)


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ2_XS", "IQ3_XXS"])
def test_a_fit_may_turn_the_signs_of_a_group_that_it_makes_as_small_as_can_be_and_of_no_other(name):
    """One weight near 0 of great importance, whose sign had to change: the scale of its group becomes negative."""
    type, rng = TensorType[name], np.random.default_rng(5)
    rows = random_rows(rng, type, *SHAPE)
    scales = fields(type.format, rows.reshape(-1, type.block.bytes)).scales
    groups = np.repeat(scales == 1, type.format.group, axis=1).reshape(SHAPE)
    copy, values = Weight("x", type, SHAPE, rows), dequantize(Weight("x", type, SHAPE, rows))
    assert groups.any()

    def off(source):
        sides = Weight("x", TensorType.F32, SHAPE, source.view(np.uint8)), copy
        one, other = (Stored.of(side, np.arange(SHAPE[0])) for side in sides)
        return forgiven(one, other, excess_of(one, other))

    assert off(np.where(groups, -10 * values, values)).max() <= 1
    assert off(-10 * values)[~groups].max() > 5
    assert off(np.where(groups, -values, values))[groups].max() > 1  # turned, and not small
    shuffled = 10 * values.reshape(-1, type.format.group)[:, rng.permutation(type.format.group)].reshape(SHAPE)
    assert off(np.where(groups, shuffled, values))[groups].max() > 5
