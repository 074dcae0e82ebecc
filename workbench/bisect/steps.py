"""How far a stored value may be from the value it was made of: the steps of its own format.

Two copies of one tensor are explained by quantization if every element differs by no more than both formats' bounds.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.dequantize import dequantize
from kernels.weight import TensorType, Weight

_HALF_ULP = {TensorType.F32: 2.0**-25, TensorType.F16: 2.0**-12, TensorType.BF16: 2.0**-9}
_SMALLEST = {TensorType.F32: 2.0**-150, TensorType.F16: 2.0**-25, TensorType.BF16: 2.0**-134}  # half a denormal step


def rounding_bound(weight: Weight) -> NDArray[np.float32]:
    """Largest distance of every stored value from its source, float32 in the weight's shape.

    Float types: half a unit in the last place. Quantized: half a step, and for K types what the rounding of the
    6-bit scale and min of a sub-block can add at the end of the code range (ggml-quants.c `quantize_row_q4_K_ref`).
    """
    if weight.type in _HALF_ULP:
        return np.abs(dequantize(weight)) * np.float32(2 * _HALF_ULP[weight.type]) + np.float32(_SMALLEST[weight.type])
    blocks = weight.rows.reshape(-1, _BLOCK_BYTES[weight.type])
    return _BOUNDS[weight.type](blocks).reshape(weight.shape)


def _half(blocks: NDArray[np.uint8], at: int) -> NDArray[np.float32]:
    return np.abs(blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32))


def _bound_45_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A whole step: at the end of the code range, which is not symmetric, codes are cut off by that much."""
    return np.repeat(_half(blocks, 0), 32, axis=1)


def _bound_q8_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Half a step, and the rounding of the scale to half precision, which happens after the codes are made."""
    step, codes = _half(blocks, 0), np.abs(blocks[:, 2:].view(np.int8).astype(np.float32))
    rounding = np.maximum(step * np.float32(2.0**-11), np.float32(2.0**-25))
    return step * np.float32(0.5) + rounding * codes


def _bound_q45_k(blocks: NDArray[np.uint8], top: int) -> NDArray[np.float32]:
    d, dmin, packed = _half(blocks, 0), _half(blocks, 2), blocks[:, 4:16].astype(np.int32)
    low, high = packed[:, :4] & 63, (packed[:, 8:12] & 15) | ((packed[:, 0:4] >> 6) << 4)
    step = d * np.concatenate([low, high], axis=1)
    bound = step * np.float32(0.5) + d * np.float32(0.5 * top) + dmin * np.float32(0.5)
    return np.repeat(bound, 32, axis=1)


def _bound_q6_k(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    d, scales = _half(blocks, 208), np.abs(blocks[:, 192:208].view(np.int8).astype(np.float32))
    return np.repeat(d * scales * np.float32(0.5) + d * np.float32(16), 16, axis=1)


_BLOCK_BYTES = {
    TensorType.Q4_0: 18,
    TensorType.Q5_0: 22,
    TensorType.Q8_0: 34,
    TensorType.Q4_K: 144,
    TensorType.Q5_K: 176,
    TensorType.Q6_K: 210,
}
_BOUNDS = {
    TensorType.Q4_0: _bound_45_0,
    TensorType.Q5_0: _bound_45_0,
    TensorType.Q8_0: _bound_q8_0,
    TensorType.Q4_K: lambda blocks: _bound_q45_k(blocks, 15),
    TensorType.Q5_K: lambda blocks: _bound_q45_k(blocks, 31),
    TensorType.Q6_K: _bound_q6_k,
}
