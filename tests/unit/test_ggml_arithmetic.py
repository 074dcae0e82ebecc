"""The 8-bit arithmetic against ggml's own C functions, by every way to multiply bytes that this processor has."""

from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest

from kernels.matmul.activations import quantize_q8_0, quantize_q8_1, quantize_q8_k
from kernels.matmul.byte_products import available
from kernels.matmul.ggml import matmul_ggml, multiplier, packed, round_activations
from kernels.rows.dequantize import dequantize, dequantize_rows
from kernels.weight import TensorType, Weight
from tests.random_weights import digest, extreme_blocks, odd_columns, random_activations, random_weight

QUANTIZED = [type for type in TensorType if type.block.elements > 1]
IN_GGUF = [type for type in QUANTIZED if type.name not in ("Q1_0", "Q2_0")]
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
    for quantize, name, size in ((quantize_q8_0, "q8_0", 34), (quantize_q8_1, "q8_1", 36)):
        blocks, ours = recorded[name].reshape(TOKENS, -1, size), quantize(x)
        halves = blocks[:, :, : size - 32].copy().view(np.float16).astype(np.float32)
        assert np.array_equal(ours.scales, halves[..., 0])
        assert ours.sums is None if size == 34 else np.array_equal(ours.sums, halves[..., 1])
        assert np.array_equal(ours.codes.reshape(TOKENS, -1, 32), blocks[:, :, -32:].view(np.int8))


@pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)
def test_matmul_of_an_odd_number_of_blocks_has_the_bits_of_ggml(type, recorded):
    columns = odd_columns(type)
    x = np.ascontiguousarray(random_activations(7, TOKENS, COLUMNS)[:, :columns])
    ours = matmul_ggml(x, random_weight(int(type), type, ROWS, columns))
    assert np.array_equal(ours.view(np.uint32), recorded[f"{type.name} odd"].view(np.uint32))


@pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)
def test_blocks_of_every_scale_have_the_bits_of_ggml(type, recorded):
    ours = dequantize_rows(type, extreme_blocks(type), type.block.elements)
    assert digest(ours) == str(recorded[f"{type.name} values"])


@pytest.mark.parametrize("type", IN_GGUF, ids=lambda type: type.name)
def test_dequantized_values_are_those_of_gguf(type):
    weight = random_weight(int(type), type, ROWS, COLUMNS)
    expected = gguf.quants.dequantize(weight.rows, gguf.GGMLQuantizationType(int(type)))
    assert np.array_equal(dequantize(weight).view(np.uint32), expected.view(np.uint32))


@cache
def multiplying(dot, how):
    return multiplier(dot, how, *(type.format for type in QUANTIZED if type.format.dot == dot))


@pytest.mark.parametrize("how", available()[:-1], ids=lambda how: how.name)
@pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)
def test_every_other_way_to_multiply_bytes_has_the_bits_of_ggml(type, how, recorded):
    multiply = multiplying(type.format.dot, how)
    x, weight = random_activations(7, TOKENS, COLUMNS), random_weight(int(type), type, ROWS, COLUMNS)
    ours = np.empty((TOKENS, ROWS), np.float32)
    codes = round_activations(x, type)
    multiply(int(type), COLUMNS, weight.rows, *packed(codes, type.format, how), ours, 0, 0, ROWS)
    assert np.array_equal(ours.view(np.uint32), recorded[type.name].view(np.uint32))


@pytest.mark.parametrize("type", QUANTIZED, ids=lambda type: type.name)
def test_products_do_not_depend_on_their_neighbours(type):
    """Odd numbers of rows and tokens, a row that ends within a chunk, and rows shared out from any row on."""
    columns = odd_columns(type) + max(256, type.block.elements)
    x, weight = random_activations(3, 9, columns), random_weight(5, type, 23, columns)
    together = matmul_ggml(x, weight)
    for token, row in ((0, 0), (8, 22), (5, 17)):
        alone = Weight("w", type, (1, columns), weight.rows[row : row + 1])
        assert matmul_ggml(x[token : token + 1], alone)[0, 0] == together[token, row]
