"""Copies of copies: both roundings are told, and nothing else is said of them."""

import numpy as np
import pytest

from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight
from tests.faults.models import plain
from tests.faults.storing import packed
from tests.memory_model import MemoryModel
from workbench.bisect.weights.causes import weight_causes
from workbench.bisect.weights.check import check_weights

MODEL = plain("qwen2-4to1")
UP = "model.layers.1.mlp.up_proj.weight"
SMALL_TYPES = (TensorType.Q4_0, TensorType.Q4_1, TensorType.Q5_0, TensorType.Q5_1, TensorType.Q8_0)


def stored(values, type=TensorType.F32):
    return MemoryModel(MODEL.config, {name: Weight(name, type, x.shape, packed(x, type)) for name, x in values.items()})


def best(name, a, b):
    causes = weight_causes(name, a, b, check_weights(a.weight(name), b.weight(name)))
    return causes[0] if causes[0].explained else causes[-1]


def rounded_twice(inner, outer, source):
    """A tensor in one type, and in another one after it was kept in `inner`."""
    values = MODEL.values[UP]
    between = dequantize(Weight(UP, inner, values.shape, packed(values, inner)))
    return stored({UP: values}, source), stored({UP: between}, outer)


@pytest.mark.parametrize(
    ("inner", "outer", "source"),
    [
        (TensorType.Q4_K, TensorType.Q5_K, TensorType.Q5_K),
        (TensorType.Q6_K, TensorType.Q4_K, TensorType.F32),
        (TensorType.Q5_K, TensorType.Q4_1, TensorType.Q6_K),
        (TensorType.Q5_1, TensorType.Q5_K, TensorType.Q6_K),
        (TensorType.Q4_1, TensorType.Q5_1, TensorType.Q5_1),
    ],
)
def test_a_second_rounding_is_no_damage_no_factor_and_no_adapter(inner, outer, source):
    """It goes beyond one rounding in some blocks all over a tensor, and moves values outward more than inward.

    Nothing is asked either of a tensor that stays within its formats, as that of the last pair does.
    """
    a, b = rounded_twice(inner, outer, source)
    found = weight_causes(UP, a, b, check_weights(a.weight(UP), b.weight(UP)))
    assert [cause.cause for cause in found if cause.explained] == []


@pytest.mark.parametrize("inner", SMALL_TYPES)
@pytest.mark.parametrize("outer", [*SMALL_TYPES, TensorType.Q4_K, TensorType.Q6_K])
def test_the_type_that_a_copy_was_kept_in_before_is_named(inner, outer):
    """Also beside BF16, which the copy was not made of; an unlike type is never named."""
    for source in (TensorType.F32, TensorType.BF16):
        a, b = rounded_twice(inner, outer, source)
        verdict = check_weights(a.weight(UP), b.weight(UP))
        if not verdict.explained:
            found = best(UP, a, b)
            assert (found.cause, f"rounded to {inner.name} first" in found.explanation) == ("requantized", True)


@pytest.mark.parametrize("type", [*SMALL_TYPES, TensorType.Q4_K, TensorType.Q6_K])
def test_a_factor_before_the_rounding_is_still_one(type):
    values = MODEL.values[UP]
    found = best(UP, stored({UP: values}), stored({UP: values * np.float32(1.02)}, type))
    assert (found.cause, "by 1.02" in found.explanation) == ("scaled", True)
