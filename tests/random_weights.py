"""Seeded random tensors in every stored type: random bits in the codes, sane values in the scales."""

import hashlib

import numpy as np

from kernels.weight import TensorType, Weight, row_bytes

# Half-precision fields of a block by byte offset, with the value that makes weights of about 0.06.
_SCALES = {
    TensorType.Q4_0: {0: 0.013},
    TensorType.Q4_1: {0: 0.013, 2: -0.1},
    TensorType.Q5_0: {0: 0.0065},
    TensorType.Q5_1: {0: 0.0065, 2: -0.1},
    TensorType.Q8_0: {0: 8e-4},
    TensorType.Q4_K: {0: 2.4e-4, 2: 1.8e-3},
    TensorType.Q5_K: {0: 1.2e-4, 2: 1.8e-3},
    TensorType.Q6_K: {208: 4.5e-5},
    TensorType.Q2_K: {80: 4e-3, 82: 4e-3},
    TensorType.Q3_K: {108: 1e-3},
    TensorType.IQ4_NL: {0: 1e-3},
    TensorType.IQ4_XS: {0: 6e-5},
    TensorType.MXFP4: {},
    TensorType.IQ2_XXS: {0: 1.6e-3},
    TensorType.IQ2_XS: {0: 1.6e-3},
    TensorType.IQ2_S: {0: 1.6e-3},
    TensorType.IQ3_XXS: {0: 5e-4},
    TensorType.IQ3_S: {0: 5e-4},
    TensorType.IQ1_S: {0: 0.01},
    TensorType.IQ1_M: {},
    TensorType.TQ1_0: {52: 0.07},
    TensorType.TQ2_0: {64: 0.05},
    TensorType.NVFP4: {},
    TensorType.Q1_0: {0: 0.06},
    TensorType.Q2_0: {0: 0.05},
}


def random_rows(rng: np.random.Generator, type: TensorType, rows: int, columns: int) -> np.ndarray:
    """uint8 (rows, row_bytes)."""
    if type in _SCALES:
        raw = rng.integers(0, 256, (rows, columns // type.block.elements, type.block.bytes), dtype=np.uint8)
        for at, value in _SCALES[type].items():
            scale = (value * rng.uniform(0.5, 1.5, raw.shape[:2])).astype(np.float16)
            raw[:, :, at : at + 2] = scale[:, :, None].view(np.uint8)
        if type == TensorType.MXFP4:
            raw[:, :, 0] = rng.integers(120, 126, raw.shape[:2])  # exponents
        if type == TensorType.NVFP4:
            raw[:, :, :4] = rng.integers(0x18, 0x28, (*raw.shape[:2], 4))  # 1/64 to 1/16
        if type == TensorType.IQ1_M:
            put_nibbles(raw, (0.01 * rng.uniform(0.5, 1.5, raw.shape[:2])).astype(np.float16))
        return raw.reshape(rows, row_bytes(type, columns))
    values = (0.06 * rng.standard_normal((rows, columns))).astype(np.float32)
    if type == TensorType.F64:
        return values.astype(np.float64).view(np.uint8)
    if type == TensorType.F16:
        return values.astype(np.float16).view(np.uint8)
    if type == TensorType.F8_E5M2:
        return np.ascontiguousarray(values.astype(np.float16).view(np.uint8)[:, 1::2])
    if type == TensorType.F8_E4M3:
        return (rng.integers(0x18, 0x20, values.shape) | 0x80 * rng.integers(0, 2, values.shape)).astype(np.uint8)
    if type == TensorType.BF16:
        return np.ascontiguousarray((values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)).view(np.uint8)
    return values.view(np.uint8)


def put_nibbles(blocks: np.ndarray, d: np.ndarray) -> None:
    """Write the scales of IQ1_M: the highest four bits of four words."""
    for n in range(4):
        high = blocks[..., 49 + 2 * n]
        high[...] = high & 15 | ((d.view(np.uint16) >> 4 * n & 15) << 4).astype(np.uint8)


def random_weight(seed: int, type: TensorType, rows: int, columns: int) -> Weight:
    rng = np.random.default_rng(seed)
    return Weight("w", type, (rows, columns), random_rows(rng, type, rows, columns))


def odd_columns(type: TensorType) -> int:
    """Columns that fill no whole chunk of 256, and an odd number of blocks; of types with blocks of 256, one block."""
    return max(256, type.block.elements) if type.block.elements >= 256 else 256 + 3 * max(32, type.block.elements)


def extreme_blocks(type: TensorType) -> np.ndarray:
    """200 random blocks; half of them have scales that are zero, denormal, the largest or negative."""
    rng = np.random.default_rng(int(type) + 100)
    blocks = random_rows(rng, type, 200, type.block.elements)
    halves = np.array([0, 0x8000, 1, 0x83FF, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0xFBFF], np.uint16)
    for at in type.format.factors:
        blocks[:100, at : at + 2] = rng.choice(halves, 100)[:, None].view(np.uint8)
    if type.format.d_as == "nibbles":
        put_nibbles(blocks[:100], rng.choice(halves, 100).view(np.float16))
    if type.format.d_as == "UE4M3":
        blocks[:100, :4] = rng.choice([0, 1, 7, 8, 0x7E, 0x7F, 0x80, 0xFF], (100, 4))
    if type.format.d_as == "E8M0":
        blocks[:100, type.format.d] = np.resize([0, 1, 2, 3, 127, 253, 254, 255], 100)
    return blocks


def tied_activations(tokens: int, columns: int) -> np.ndarray:
    """The same with tokens whose largest and smallest value have the same magnitude: either comes first."""
    x = random_activations(7, tokens, columns)
    x[0, 3:6:2], x[2, 3:6:2] = (-200, 200), (200, -200)
    x[-1, 3:6:2] = -200, 200
    return x


def digest(values: np.ndarray) -> str:
    """Of the bits of an array."""
    return hashlib.sha256(values.tobytes()).hexdigest()


def random_activations(seed: int, tokens: int, columns: int) -> np.ndarray:
    """Activations with a few outliers, as real ones have; one block of 256 is all zero."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, columns)) * rng.choice([1.0, 1.0, 1.0, 40.0], (tokens, columns))
    x[0, :256] = 0
    return x.astype(np.float32)
