"""The 8-bit arithmetic against ggml's own C functions, and the vector code against plain loops."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from kernels import packed_dot
from kernels.activations import quantize_q8_0, quantize_q8_k
from kernels.compiler import helper
from kernels.dequantize import dequantize
from kernels.matmul_ggml import matmul_ggml
from kernels.weight import BLOCKS, TensorType
from tests.random_weights import random_activations, random_weight

QUANTIZED = [type for type in TensorType if BLOCKS[type].elements > 1]
ROWS, COLUMNS, TOKENS = 24, 768, 4


@pytest.fixture(scope="module")
def recorded():
    with np.load(Path(__file__).parents[1] / "golden/ggml-dots.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)
def test_matmul_has_the_bits_of_ggml(type, recorded):
    ours = matmul_ggml(random_activations(7, TOKENS, COLUMNS), random_weight(int(type), type, ROWS, COLUMNS))
    assert np.array_equal(ours.view(np.uint32), recorded[type.name].view(np.uint32))


def test_activation_codes_are_those_of_ggml(recorded):
    x = random_activations(7, TOKENS, COLUMNS)
    blocks = recorded["q8_K"].reshape(TOKENS, -1, 292)
    ours = quantize_q8_k(x)
    assert np.array_equal(ours.scales, blocks[:, :, :4].copy().view(np.float32)[..., 0])
    assert np.array_equal(ours.codes.reshape(TOKENS, -1, 256), blocks[:, :, 4:260].view(np.int8))
    blocks = recorded["q8_0"].reshape(TOKENS, -1, 34)
    ours = quantize_q8_0(x)
    assert np.array_equal(ours.scales, blocks[:, :, :2].copy().view(np.float16)[..., 0].astype(np.float32))
    assert np.array_equal(ours.codes.reshape(TOKENS, -1, 32), blocks[:, :, 2:].view(np.int8))


@pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)
def test_dequantized_values_are_those_of_gguf(type):
    weight = random_weight(int(type), type, ROWS, COLUMNS)
    expected = gguf.quants.dequantize(weight.rows, gguf.GGMLQuantizationType(int(type)))
    assert np.array_equal(dequantize(weight).view(np.uint32), expected.view(np.uint32))


@pytest.mark.skipif(not packed_dot.HAS_AVX2, reason="there is only the plain loop on this processor")
@pytest.mark.parametrize("name", ["BLOCK_32", "Q4_K", "Q5_K", "Q6_K"])
def test_vector_and_plain_dots_have_the_same_bits(name):
    scheme = getattr(packed_dot, name)
    vector = packed_dot.vector_dot(scheme, 3)
    run, plain = helper()(lambda *arguments: vector(*arguments)), packed_dot.plain_dot(scheme, 3)
    rng, n = np.random.default_rng(5), 1024
    blocks = n // (32 * scheme.groups)
    for _ in range(20):
        codes = rng.integers(-128, 128, n) if scheme.signed else rng.integers(0, 64, n)
        x = rng.integers(-127, 128, (4, n)).astype(np.int8)
        scales = rng.integers(-128, 128, n // 16) if scheme.scales == 2 else rng.integers(0, 64, n // 32)
        arrays = (
            1,
            blocks,
            codes.astype(np.int8),
            scales.astype(np.int16),
            rng.integers(0, 64, n // 32).astype(np.int16),
            rng.standard_normal(blocks).astype(np.float32),
            rng.standard_normal(blocks).astype(np.float32),
            x,
            rng.standard_normal((4, blocks)).astype(np.float32),
            x.reshape(4, -1, 16).sum(2, dtype=np.int16),
            x.reshape(4, -1, 32).sum(2, dtype=np.int16),
        )
        ours, theirs = np.zeros((4, 5), np.float32), np.zeros((4, 5), np.float32)
        run(*arrays, ours, 5, 2)
        plain(*arrays, theirs, 5, 2)
        assert theirs[1:, 2].all()
        assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))
