"""The APR v2 container: header, flags and element types. Little-endian; every section is padded to 64 bytes."""

import struct
import zlib

from kernels.weight import TensorType
from store.errors import ArtifactError
from store.layout import Shape, show_shape, stored_bytes
from store.tensor_types import OtherType, StoredType
from store.text import printable

MAGIC = b"APR\0"
ALIGNMENT = 64
HEADER = struct.Struct("<4sBBHIQIQQI20x")
"""magic, major, minor, flags, tensor count, metadata offset and size, index offset, data offset, checksum"""
CHECKSUM_OFFSET = 40
MAX_METADATA = 16 << 20
MAX_NAME = 256
MAX_DIMS = 8

FLAG_LZ4, FLAG_ZSTD, FLAG_ENCRYPTED = 0x0001, 0x0002, 0x0004
FLAG_QUANTIZED, FLAG_VOCABULARY = 0x0020, 0x0200
FLAG_ROW_MAJOR, FLAG_COLUMN_MAJOR = 0x0400, 0x0800

_OTHER_TYPES: dict[int, str] = {
    3: "F64, Q4_1 or I8",
    4: "I32 or I16",
    5: "I64 or I32",
    6: "I8 or I64",
    7: "U8 or Q5_1",
    8: "AprQ4 or an early Q4_K",
    9: "AprQ8",
    128: "AprQ4",
    129: "AprQ8",
}


def _readings(code: int) -> list[TensorType]:
    """What a code has meant to one writer or another, ggml's number first; the stored size tells which."""
    found = [type for type in TensorType if code in (type, *type.format.apr_codes)]
    return sorted(found, key=lambda type: type != code)


def padded(size: int) -> int:
    """Round `size` up to the alignment of the format."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def header_checksum(header: bytes) -> int:
    """CRC-32 of a 64-byte header, its own checksum field left out."""
    return zlib.crc32(header[CHECKSUM_OFFSET + 4 :], zlib.crc32(header[:CHECKSUM_OFFSET]))


def tensor_type(file: str, name: str, code: int, shape: Shape, size: int) -> StoredType:
    """Return the type of a tensor that takes `size` bytes and carries this dtype code.

    Raises ArtifactError if the size fits no reading of the code.
    """
    readings = _readings(code)
    for reading in readings:
        if shape[-1] % reading.block.elements == 0 and stored_bytes(reading, shape) == size:
            return reading
    for reading in readings:
        if reading.block.elements == 256 and stored_bytes(reading, (*shape[:-1], -(-shape[-1] // 256) * 256)) == size:
            return OtherType(f"{reading.name} with rows padded from {shape[-1]} to whole blocks")
    if code in _OTHER_TYPES or not readings:
        return OtherType(f"{_OTHER_TYPES.get(code, 'unknown')} (dtype code {code})")
    names = " or ".join(reading.name for reading in readings)
    raise ArtifactError(
        f"{file} is malformed: tensor {printable(name, 80)} has dtype code {code} ({names}) and the shape "
        f"{show_shape(shape)}, which do not make {size} bytes; convert the model again."
    )
