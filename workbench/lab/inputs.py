"""The inputs of the published experiments, made from formulas, so that anyone can make them again."""

import numpy as np
from numpy.typing import NDArray

from kernels.weight import TensorType, Weight

ONE, MINUS_QUARTER = b"\x00\x3c", b"\x00\xb4"  # as half-precision numbers
SIZE = 256  # elements of a block, and of the published activations
DRIFT = 0.00077  # the relative difference of one product that all later experiments took as given

Floats = NDArray[np.float32]


def scaled(numbers: NDArray[np.int64], step: float) -> Floats:
    """Whole numbers times a step, both as float32, the product rounded to float32."""
    return numbers.astype(np.float32) * np.float32(step)


def activation(token: int = 0, size: int = SIZE) -> Floats:
    """(i - size/2) 0.05 + (i % 7 + token) 0.01 in float32, (size,): about -6.4 to 6.4, rising."""
    i = np.arange(size)
    return scaled(i - size // 2, 0.05) + scaled(i % 7 + token, 0.01)


def q4_k_weight(rows: int, tensor: int = 0, d: bytes = ONE, dmin: bytes = MINUS_QUARTER) -> Weight:
    """A Q4_K weight (rows, 256) whose scales and codes are residues, another series of them in every row and tensor."""
    row, i = np.arange(rows)[:, None], np.arange(128)
    factors = np.broadcast_to(np.frombuffer(d + dmin, np.uint8), (rows, 4))
    scales = (7 * i[:12] + 3 + row + 11 * tensor) % 256
    codes = (13 * i + 17 + 3 * row + 19 * tensor) % 256
    stored = np.concatenate([factors, scales, codes], axis=1).astype(np.uint8)
    return Weight(f"published {tensor}", TensorType["Q4_K"], (rows, SIZE), stored)


def residues(shape: tuple[int, int], factor: int, modulus: int, offset: int, step: float) -> Floats:
    """((factor i) % modulus - offset) step of element i, float32."""
    i = np.arange(shape[0] * shape[1])
    return scaled(factor * i % modulus - offset, step).reshape(shape)


def float_weight(values: Floats) -> Weight:
    """Values (out, in) as an F32 weight."""
    stored = np.ascontiguousarray(values).view(np.uint8)
    return Weight("published", TensorType["F32"], (values.shape[0], values.shape[1]), stored)
