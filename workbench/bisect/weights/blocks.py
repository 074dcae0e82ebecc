"""Stored blocks taken apart in plain NumPy, one at a time, for whoever wants to see what is in them.

The kernels unpack whole rows at once and keep nothing of it (kernels/formats/dequantize.py, kernels/matmul/ggml.py);
here every field has a name. Layouts: ggml-common.h.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.formats.dequantize import dequantize_rows
from kernels.weight import TensorType

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One block: value i is d * scales[s] * (codes[i] - zero) - dmin * mins[s], with s the sub-block of i.

    raw : as stored. d, dmin : half-precision factors; None where the format has none. scales, mins : integers of the
    sub-blocks; empty where the format has none. codes : as stored; empty for a float format.
    values : what the block stands for, float32, bit for bit as ggml dequantizes it.
    """

    raw: bytes
    d: np.float32 | None
    dmin: np.float32 | None
    scales: NDArray[np.int32]
    mins: NDArray[np.int32]
    codes: NDArray[np.int32]
    zero: int
    values: NDArray[np.float32]


def read_block(type: TensorType, raw: bytes) -> Block:
    """Take one block of a quantized row apart; of a float row any number of values."""
    stored = np.frombuffer(raw, np.uint8)
    if type not in _FIELDS:
        none = np.zeros(0, np.int32)
        elements = len(raw) // (4 if type == TensorType.F32 else 2)
        return Block(raw, None, None, none, none, none, 0, dequantize_rows(type, stored.reshape(1, -1), elements)[0])
    d, dmin, scales, mins, codes, zero = _FIELDS[type](stored)
    values = (codes - zero).astype(np.float32) * np.repeat(d * scales.astype(np.float32), codes.size // scales.size)
    if dmin is not None:
        values -= np.repeat(dmin * mins.astype(np.float32), codes.size // mins.size)
    return Block(raw, d, dmin, scales, mins, codes, zero, values)


_Fields = tuple[np.float32, np.float32 | None, NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], int]
_ONE, _NONE = np.ones(1, np.int32), np.zeros(0, np.int32)


def _half(stored: Bytes, at: int) -> np.float32:
    return np.float32(stored[at : at + 2].view(np.float16)[0])


def _nibbles(stored: Bytes) -> NDArray[np.int32]:
    return np.concatenate([stored & 15, stored >> 4]).astype(np.int32)


def _q8_0(stored: Bytes) -> _Fields:
    return _half(stored, 0), None, _ONE, _NONE, stored[2:].view(np.int8).astype(np.int32), 0


def _q4_0(stored: Bytes) -> _Fields:
    return _half(stored, 0), None, _ONE, _NONE, _nibbles(stored[2:]), 8


def _q5_0(stored: Bytes) -> _Fields:
    high = np.unpackbits(stored[2:6], bitorder="little").astype(np.int32)
    return _half(stored, 0), None, _ONE, _NONE, _nibbles(stored[6:]) | high << 4, 16


def _q45_k(stored: Bytes, quants: int) -> _Fields:
    packed = stored[4:16].astype(np.int32)
    scales = np.concatenate([packed[:4] & 63, (packed[8:] & 15) | (packed[:4] >> 6) << 4])
    mins = np.concatenate([packed[4:8] & 63, (packed[8:] >> 4) | (packed[4:8] >> 6) << 4])
    pairs = stored[quants:].reshape(4, 32).astype(np.int32)  # low nibbles: even sub-blocks, high: odd
    codes = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(256)
    return _half(stored, 0), _half(stored, 2), scales, mins, codes, 0


def _q4_k(stored: Bytes) -> _Fields:
    return _q45_k(stored, 16)


def _q5_k(stored: Bytes) -> _Fields:
    d, dmin, scales, mins, codes, zero = _q45_k(stored, 48)
    high = (stored[16:48].astype(np.int32) >> np.arange(8)[:, None]) & 1  # bit s of byte j: element j of sub-block s
    return d, dmin, scales, mins, codes | high.reshape(256).astype(np.int32) << 4, zero


def _q6_k(stored: Bytes) -> _Fields:
    halves, pairs = stored[:128].reshape(2, 64).astype(np.int32), stored[128:192].reshape(2, 1, 32).astype(np.int32)
    low = np.concatenate([halves & 15, halves >> 4], axis=1)
    high = ((pairs >> (2 * np.arange(4, dtype=np.int32))[:, None]) & 3).reshape(2, 128)
    scales = stored[192:208].view(np.int8).astype(np.int32)
    return _half(stored, 208), None, scales, _NONE, (low | high << 4).reshape(256), 32


_FIELDS: dict[TensorType, Callable[[Bytes], _Fields]] = {
    TensorType.Q4_0: _q4_0,
    TensorType.Q5_0: _q5_0,
    TensorType.Q8_0: _q8_0,
    TensorType.Q4_K: _q4_k,
    TensorType.Q5_K: _q5_k,
    TensorType.Q6_K: _q6_k,
}
