"""Several weights side by side: the bits of each alone, whatever its type and the order of its rows."""

import numpy as np
import pytest

from kernels.paths import PATHS, numeric_path
from kernels.weight import TensorType, Weight
from tests.random_weights import random_activations, random_weight

COLUMNS = 512


@pytest.mark.parametrize("tokens", [1, 5, 13])
@pytest.mark.parametrize("path", PATHS)
def test_weights_side_by_side_give_the_bits_of_each_alone(path, tokens, monkeypatch):
    monkeypatch.setenv("WORKBENCH_THREADS", "3")
    arithmetic = numeric_path(path)
    x = random_activations(1, tokens, COLUMNS).astype(arithmetic.dtype)
    types = (TensorType.Q4_K, TensorType.Q4_K, TensorType.Q6_K, TensorType.F16, TensorType.Q8_0)
    plain = [random_weight(seed, type, 8 + 50 * seed, COLUMNS) for seed, type in enumerate(types)]
    orders = [np.random.default_rng(seed).permutation(len(weight.stored)) for seed, weight in enumerate(plain)]
    reordered = [
        Weight("w", weight.type, weight.shape, weight.stored, order)
        for weight, order in zip(plain, orders, strict=True)
    ]
    alone = [
        arithmetic.matmul(x, Weight("w", weight.type, weight.shape, weight.stored[order]))
        for weight, order in zip(plain, orders, strict=True)
    ]
    assert np.array_equal(arithmetic.matmul(x, *reordered), np.concatenate(alone, axis=1))
