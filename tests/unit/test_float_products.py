"""Products of floats, bit for bit as one element after another gives them, for every rest that tiles leave."""

import numpy as np
import pytest

from kernels.matmul.floats import matmul_f32, matmul_f32_apr
from kernels.weight import TensorType
from tests.random_weights import random_activations, random_weight

ROWS = 29  # two groups of twelve and a rest


def fma(a, b, c):
    """One rounding: products of float32 are exact in float64, and their sums nearly so in extended precision."""
    return (a.astype(np.longdouble) * b + c).astype(np.float32)


def literal(x, w, chains):
    whole = x.shape[1] // chains * chains
    sums = [np.zeros((len(x), len(w)), np.float32) for _ in range(chains)]
    for k in range(whole):
        sums[k % chains] = fma(x[:, k, None], w[None, :, k], sums[k % chains])
    sums = [sums[i] + sums[i + chains // 2] for i in range(chains // 2)]
    while len(sums) > 1:
        sums = [sums[i] + sums[i + 1] for i in range(0, len(sums), 2)]
    for k in range(whole, x.shape[1]):
        sums[0] = sums[0] + x[:, k, None] * w[None, :, k]
    return sums[0]


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="the oracle needs extended precision")
@pytest.mark.parametrize("tokens", [1, 7, 8, 9, 21])
@pytest.mark.parametrize("columns", [3, 30, 514, 1037])
@pytest.mark.parametrize(("matmul", "chains"), [(matmul_f32, 4), (matmul_f32_apr, 8)])
def test_products_have_the_bits_of_one_element_after_another(matmul, chains, columns, tokens):
    x = random_activations(2, tokens, columns)
    weight = random_weight(3, TensorType.F16, ROWS, columns)
    found = matmul(x, weight)
    assert np.array_equal(found, literal(x, weight.rows.view(np.float16).astype(np.float32), chains))
