"""The APR v2 container: header, flags and element types. Little-endian; every section is padded to 64 bytes."""

import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from math import prod
from struct import unpack
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.weight import TensorType
from store.encodings import APR_Q4, AprQ8, Encoding, Padded
from store.errors import ArtifactError
from store.layout import Shape, show_shape, stored_bytes
from store.tensor_types import OtherType, StoredType, safetensors_type
from store.text import printable

MAGIC = b"APR\0"
ALIGNMENT = 64
HEADER = struct.Struct("<4sBBHIQIQQI20x")
"""magic, major, minor, flags, tensor count, metadata offset and size, index offset, data offset, checksum"""
CHECKSUM_OFFSET = 40
MAX_METADATA = 16 << 20
MAX_NAME = 256
MAX_DIMS = 8

FLAG_LZ4, FLAG_ZSTD, FLAG_ENCRYPTED, FLAG_SIGNED = 0x0001, 0x0002, 0x0004, 0x0008
FLAG_QUANTIZED, FLAG_VOCABULARY = 0x0020, 0x0200
FLAG_ROW_MAJOR, FLAG_COLUMN_MAJOR = 0x0400, 0x0800

# Types that are numbers and no weights, by code: the name and the bytes of one, of all writers there have been.
_NUMBERS: dict[int, tuple[tuple[str, int], ...]] = {
    3: (("F64", 8), ("I8", 1)),
    4: (("I32", 4), ("I16", 2)),
    5: (("I64", 8), ("I32", 4)),
    6: (("I8", 1), ("I64", 8)),
    7: (("U8", 1),),
}
APR_Q4_CODES, APR_Q8_CODES = (128, 8), (129, 9, 8)  # the canonical one first
_EARLY_Q4_K = 8
_LOOKED_AT = 4096  # blocks

Look = Callable[[int, int], bytes]


class Stored(NamedTuple):
    """What a tensor is stored as: type, how its bytes lie, and how many of them stand before its values."""

    type: StoredType
    encoding: Encoding | None = None
    before: int = 0


@lru_cache
def _readings(code: int) -> tuple[TensorType, ...]:
    """What a code has meant to one writer or another, ggml's number first; the stored size tells which."""
    found = [type for type in TensorType if code in (type, *type.format.apr_codes)]
    return tuple(sorted(found, key=lambda type: type != code))


def padded(size: int) -> int:
    """Round `size` up to the alignment of the format."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def header_checksum(header: bytes) -> int:
    """CRC-32 of a 64-byte header, its own checksum field left out."""
    return zlib.crc32(header[CHECKSUM_OFFSET + 4 :], zlib.crc32(header[:CHECKSUM_OFFSET]))


def stored_as(file: str, name: str, code: int, shape: Shape, size: int, look: Look) -> Stored:
    """Return what a tensor that takes `size` bytes and carries this dtype code is.

    look : reads so many bytes from a byte of the tensor on. Raises ArtifactError if the size fits no reading of the
    code.
    """
    readings, columns, count = _readings(code), shape[-1], prod(shape)
    for reading in readings:
        if columns % reading.block.elements == 0 and stored_bytes(reading, shape) == size:
            return Stored(reading)
    if code in APR_Q4_CODES and size == -(-count // 32) * 18:
        return _four_bits(code, shape, size, look)
    if code in APR_Q8_CODES and size == 4 + count:
        return Stored(TensorType["F32"], AprQ8.of(unpack("<f", look(0, 4))[0]), 4)
    early = [TensorType["Q4_K"], TensorType["Q5_K"]] if code == _EARLY_Q4_K else []
    for reading in (*readings, *early):
        whole = -(-columns // 256) * 256
        if reading.block.elements == 256 and stored_bytes(reading, (*shape[:-1], whole)) == size:
            if whole == columns:
                return Stored(reading)
            return Stored(TensorType["F32"], Padded(f"{reading.name}, padded", blocks=reading))
    for other, width in _NUMBERS.get(code, ()):
        if width * count == size:
            return Stored(safetensors_type(other))
    if code in (*_NUMBERS, *APR_Q4_CODES, *APR_Q8_CODES) or not readings:
        return Stored(OtherType(f"of unknown kind (dtype code {code})"))
    names = " or ".join(reading.name for reading in readings)
    raise ArtifactError(
        f"{file} is malformed: tensor {printable(name, 80)} has dtype code {code} ({names}) and the shape "
        f"{show_shape(shape)}, which do not make {size} bytes; convert the model again."
    )


def _four_bits(code: int, shape: Shape, size: int, look: Look) -> Stored:
    """Tell AprQ4 from the Q4_K that once had its code and has its size: every scale of AprQ4 is a number above 0."""
    columns = shape[-1]
    apr = Stored(TensorType["Q4_0"], APR_Q4)
    if columns % 32:
        apr = Stored(OtherType("AprQ4", note=f" with rows of {columns} values, which do not fill its blocks of 32"))
    if code != _EARLY_Q4_K or columns % 256:
        return apr
    data = np.frombuffer(look(0, min(size, _LOOKED_AT * 144) // 144 * 144), np.uint8)
    four = _are_scales(data.reshape(-1, 18)[:, :2])
    early = _are_scales(data.reshape(-1, 144)[:, :4])
    if four == early:
        return Stored(OtherType("AprQ4 or an early Q4_K", note=f" (dtype code {code}), which its bytes do not tell"))
    return apr if four else Stored(TensorType["Q4_K"])


def _are_scales(bytes: NDArray[np.uint8]) -> bool:
    """Whether all of these half-precision numbers are finite and not negative."""
    halves = np.ascontiguousarray(bytes).view("<u2")
    return bool((halves < 0x7C00).all())
