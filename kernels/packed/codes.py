"""Codes of a few bits out of the words that they are packed in, for chosen rows of a weight.

All functions take the stored part first and the row numbers last, so that what lies between can be bound, and return
uint8 (rows, columns). Words are little-endian, and a word of 32 bits is filled from its lowest bit on.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
Rows = NDArray[np.intp]

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight outputs each nibble of a word belongs to, the lowest first


def as_bytes(stored: Bytes, rows: Rows) -> Bytes:
    """A code a byte, (out, in)."""
    return stored[rows]


def along_rows(stored: Bytes, bits: int, columns: int, rows: Rows) -> Bytes:
    """Code j of a row begins at bit bits * j of its bytes, (out, bytes); the lowest bit of a byte comes first."""
    return _lowest_first(stored[rows], bits)[:, :columns]


def high_first(stored: Bytes, rows: Rows) -> Bytes:
    """Two codes of 4 bits a byte, (out, in / 2), the first one in the upper half."""
    pairs = stored[rows]
    return np.stack([pairs >> 4, pairs & 15], axis=2).reshape(len(pairs), -1)


def down_columns(stored: Words, bits: int, columns: int, rows: Rows) -> Bytes:
    """The codes of a row fill the words of a column, (words, out): GPTQ."""
    words = np.ascontiguousarray(stored[:, rows].T)
    return _lowest_first(words.view(np.uint8), bits)[:, :columns]


def across_rows(stored: Words, order: tuple[int, ...], rows: Rows) -> Bytes:
    """Eight rows share the words of one column, (in, out / 8); nibble n is that of row order[n]: AWQ."""
    nibble = np.argsort(order)[rows % len(order)]
    words = stored[:, rows // len(order)] >> (4 * nibble).astype(np.uint32)
    return np.ascontiguousarray((words & 15).astype(np.uint8).T)


def _lowest_first(stored: Bytes, bits: int) -> Bytes:
    """All codes of `bits` bits in rows of bytes, the lowest bits first; a code may lie in two bytes."""
    if bits == 8:
        return stored
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        return (stored[:, :, None] >> shifts & np.uint8((1 << bits) - 1)).reshape(len(stored), -1)
    count = stored.shape[1] * 8 // bits
    single = np.unpackbits(stored, axis=1, bitorder="little", count=count * bits).reshape(len(stored), count, bits)
    return np.packbits(single, axis=2, bitorder="little")[:, :, 0]
