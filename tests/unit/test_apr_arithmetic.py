"""The published measurements of APR's arithmetic, digit for digit."""

import numpy as np
import pytest

from kernels.matmul.apr import matmul_apr, matmul_f32_apr
from kernels.rows.dequantize import dequantize
from kernels.weight import TensorType, Weight


def q4_k_block(d: bytes, dmin: bytes) -> Weight:
    scales = bytes((7 * i + 3) % 256 for i in range(12))
    nibbles = bytes((13 * i + 17) % 256 for i in range(128))
    raw = np.frombuffer(d + dmin + scales + nibbles, np.uint8).copy()
    return Weight("block", TensorType.Q4_K, (1, 256), raw.reshape(1, 144))


def activation() -> np.ndarray:
    i = np.arange(256)
    return ((i - 128).astype("f4") * np.float32(0.05) + (i % 7).astype("f4") * np.float32(0.01)).reshape(1, 256)


def bits(value: np.ndarray) -> int:
    return int(np.float32(value).view(np.uint32))


def left_fold(a: np.ndarray, b: np.ndarray) -> np.float32:
    total = np.float32(0)
    for x, y in zip(a, b, strict=True):
        total = np.float32(total + np.float32(x * y))
    return total


def test_the_fold_order_of_128_products_does_not_change_the_bits():
    i = np.arange(128)
    f = np.float32
    a = (i - 64).astype("f4") * f(0.1) + (i % 7).astype("f4") * f(0.013)
    b = (i.astype("f4") * f(0.7) - f(50)) * f(0.05) + (i % 11).astype("f4") * f(0.011)
    weight = Weight("b", TensorType.F32, (1, 128), b.view(np.uint8).reshape(1, 512))
    assert bits(matmul_f32_apr(a.reshape(1, 128), weight)[0, 0]) == 0x44191E70 == bits(left_fold(a, b))


def test_dequantized_block_has_the_published_ends():
    values = dequantize(q4_k_block(b"\x00\x3c", b"\x00\xb4"))[0]
    assert (values[0], values[255]) == (10.75, 1.25)


def test_one_row_differs_between_float_and_8_bit_activations_by_the_published_share():
    block, x = q4_k_block(b"\x00\x3c", b"\x00\xb4"), activation()
    exact = left_fold(dequantize(block)[0], x[0])
    fused = matmul_apr(x, block)[0, 0]
    assert (bits(exact), bits(fused)) == (0xC69384E3, 0xC693A21E)
    assert f"{abs(fused - exact) / abs(exact):.6%}" == "0.077401%"


@pytest.mark.parametrize(
    ("d", "published"),
    [
        (b"\x10\x14", 0.091873),
        (b"\x1f\x21", 0.091873),
        (b"\x33\x29", 0.091924),
        (b"\x66\x2e", 0.092017),
        (b"\x00\x38", 0.091932),
        (b"\x00\x3c", 0.091932),
        (b"\x00\x49", 0.091966),
    ],
)
def test_the_share_does_not_grow_with_the_scale_of_the_block(d, published):
    block, x = q4_k_block(d, b"\x00\x00"), activation()
    exact = np.float64(left_fold(dequantize(block)[0], x[0]))
    fused = np.float64(matmul_apr(x, block)[0, 0])
    assert round(abs(fused - exact) / abs(exact) * 100, 6) == published
