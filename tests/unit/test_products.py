"""Several weights side by side: the bits of each alone, whatever its type and the order of its rows."""

import numpy as np
import pytest

from kernels.matmul.products import groups
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


@pytest.mark.parametrize("type", [TensorType.Q4_K, TensorType.Q8_0])
def test_many_tokens_in_groups_give_the_bits_of_each_alone(type):
    """A reordered weight beside a plain one, with more tokens than are multiplied at once."""
    arithmetic, x = numeric_path("ggml"), random_activations(1, 117, COLUMNS)
    plain, other = (random_weight(seed, type, 24, COLUMNS) for seed in (2, 3))
    turned = Weight("w", type, other.shape, other.stored, np.random.default_rng(4).permutation(24))
    alone = [arithmetic.matmul(x[token : token + 1], plain, turned) for token in range(len(x))]
    assert np.array_equal(arithmetic.matmul(x, plain, turned), np.concatenate(alone))


def test_groups_hold_every_token_once_in_whole_tiles_of_about_one_size():
    for tokens in range(1, 700):
        found = [range(tokens)[some] for some in groups(tokens, 96)]
        assert [token for group in found for token in group] == list(range(tokens))
        assert all(len(group) % 16 == 0 for group in found[:-1])
        assert max(map(len, found)) <= 96
        assert len(found) == -(-tokens // 96)
