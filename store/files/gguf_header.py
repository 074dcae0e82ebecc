"""Read the header of a GGUF file, versions 2 and 3 (ggml/docs/gguf.md of llama.cpp): metadata and tensor table.

A file of a big-endian machine has every number the other way round, in its header and in its tensors.

One pass over its bytes; arrays, such as a vocabulary of 152 000 strings, are skipped and remembered by their place.
"""

import mmap
import struct
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np

from kernels.errors import UnsupportedModelError
from kernels.weight import TensorType
from store.artifact import TensorInfo
from store.encodings import BIG_ENDIAN, AprQ8, of_big_endian
from store.errors import ArtifactError
from store.files.fields import Fields
from store.files.model_file import ModelFile
from store.layout import check_blocks, check_overlaps, check_rank, counted
from store.tensor_types import ggml_type
from store.text import printable
from store.vocabulary import LazyArray

MAX_TENSORS = 1 << 16
MAX_KEYS = 1 << 14
MAX_STRINGS = 1 << 22  # in all arrays of a file together
MAX_ELEMENTS = 1 << 24  # in one array of numbers
MAX_TEXT = 1 << 26  # bytes of all strings of a file together

_STRING, _ARRAY = 8, 9
_SCALARS: dict[int, tuple[str, str]] = {  # value type -> struct and numpy code, name
    0: ("B", "uint8"),
    1: ("b", "int8"),
    2: ("H", "uint16"),
    3: ("h", "int16"),
    4: ("I", "uint32"),
    5: ("i", "int32"),
    6: ("f", "float32"),
    7: ("?", "bool"),
    10: ("Q", "uint64"),
    11: ("q", "int64"),
    12: ("d", "float64"),
}

_ORDERS = {order: (struct.Struct(f"{order}I"), struct.Struct(f"{order}Q")) for order in "<>"}


class _Cursor:
    """Walks through a mapped header; nothing is read or allocated before its length is known to lie in the file."""

    def __init__(self, file: ModelFile, data: mmap.mmap) -> None:
        self.file = file
        self.data = data
        self.position = 0
        self.ready = 0
        self.order = "<"
        self.strings = 0
        self.text = 0

    def unpack(self, layout: struct.Struct, what: str) -> int | float | bool:
        start = self.skip(layout.size, what)
        value: int | float | bool = layout.unpack_from(self.data, start)[0]
        return value

    def u32(self, what: str) -> int:
        return int(self.unpack(_ORDERS[self.order][0], what))

    def u64(self, what: str) -> int:
        return int(self.unpack(_ORDERS[self.order][1], what))

    def skip(self, length: int, what: str) -> int:
        """Step over `length` bytes and return where they start."""
        start = self.position
        self.file.require(start, length, what)
        self.position = start + length
        if self.position > self.ready:
            self.ready = self.file.present(self.position)
        return start

    def count(self, limit: int, what: str) -> int:
        value = self.u64(f"the number of {what}")
        if value > limit:
            raise ArtifactError(
                f"{self.file.shown} is malformed: it claims {value} {what}, more than {limit}; download it again."
            )
        return value

    def string(self, what: str) -> str:
        length = self.u64(f"the length of {what}")
        start = self.skip(length, what)
        self._spend(length, what)
        return self.data[start : start + length].decode("utf-8", "surrogateescape")

    def skip_strings(self, count: int, what: str) -> None:
        """Move past `count` strings; ArtifactError if they are too many or end beyond the file."""
        self.strings += count
        if self.strings > MAX_STRINGS:
            raise ArtifactError(
                f"{self.file.shown} is malformed: it claims more than {MAX_STRINGS} strings; download it again."
            )
        unpack, data, position = _ORDERS[self.order][1].unpack_from, self.data, self.position
        try:
            for _ in range(count):
                if position + 8 > self.ready and position + 8 <= self.file.size:
                    self.ready = self.file.present(position + 8)
                position += 8 + unpack(data, position)[0]
        except (struct.error, OverflowError):
            position = max(position, self.file.size + 1)
        self.file.require(self.position, position - self.position, what)
        self._spend(position - self.position, what)
        self.position = position
        if position > self.ready:
            self.ready = self.file.present(position)

    def _spend(self, length: int, what: str) -> None:
        self.text += length
        if self.text > MAX_TEXT:
            raise ArtifactError(
                f"{self.file.shown} is malformed: with {what} its strings exceed {MAX_TEXT} bytes; download it again."
            )


class Entry(NamedTuple):
    """A line of the tensor table as it is stored: `dims` fastest axis first, `offset` from the start of the data."""

    name: str
    dims: list[int]
    type: int
    offset: int


class Header(NamedTuple):
    """What stands before the tensor data of a GGUF file, nothing of it checked beyond its length."""

    metadata: dict[str, object]
    entries: list[Entry]
    data_offset: int
    alignment: int
    big_endian: bool


def read_header(file: ModelFile) -> Header:
    """Read metadata and tensor table; ArtifactError for anything that does not lie within the file."""
    file.require(0, 24, "the GGUF header")
    with file.mapped() as data:
        cursor = _Cursor(file, data)
        if data[cursor.skip(4, "the magic number") : cursor.position] != b"GGUF":
            raise ArtifactError(f"{file.shown} is no GGUF file; put the right one there.")
        _take_version(cursor)
        n_tensors = cursor.count(MAX_TENSORS, "tensors")
        n_keys = cursor.count(MAX_KEYS, "metadata entries")
        metadata = _metadata(cursor, n_keys)
        entries = [_entry(cursor) for _ in range(n_tensors)]
    alignment = Fields(file.shown, metadata).integer("general.alignment") or 32
    if alignment & (alignment - 1):
        raise ArtifactError(
            f"{file.shown} is malformed: general.alignment is {alignment}, not a power of two; convert it again."
        )
    data_offset = -(-cursor.position // alignment) * alignment
    return Header(metadata, entries, data_offset, alignment, big_endian=cursor.order == ">")


def tensor_table(file: ModelFile, header: Header) -> tuple[list[TensorInfo], list[str]]:
    """Return the tensors, their names as stored, and sentences about what is odd.

    Raises ArtifactError for a tensor that does not lie within the file or shares bytes with another.
    """
    relabelled = _one_scale(file, header)
    tensors = [relabelled.get(entry.name) or _located(file, header, entry) for entry in header.entries]
    check_overlaps(file.shown, tensors)
    unaligned = [entry.name for entry in header.entries if entry.offset % header.alignment]
    problems = []
    if unaligned:
        problems.append(
            f"{file.shown} places {len(unaligned)} tensors off its alignment of {header.alignment} bytes, the first is "
            f"{printable(unaligned[0], 80)}; llama.cpp refuses such a file."
        )
    if relabelled:
        problems.append(
            f"{file.shown} holds {counted(list(relabelled))} of type AprQ8 under the name of Q8_0, as `apr export` "
            "wrote them before version 0.40; they are read as AprQ8, and every other engine misreads them."
        )
    if header.big_endian:
        problems.append(f"{file.shown} is of a big-endian machine; llama.cpp reads it on such machines only.")
    return tensors, problems


def _one_scale(file: ModelFile, header: Header) -> dict[str, TensorInfo]:
    """Find tensors of Q8_0 that are bytes behind a single scale: there is room for those and not for blocks."""
    starts = sorted({entry.offset for entry in header.entries} | {file.size - header.data_offset})
    ends = dict(pairwise(starts))
    found = {}
    for entry in header.entries:
        count, room = prod(entry.dims), ends.get(entry.offset, entry.offset) - entry.offset
        padded = -(-(4 + count) // header.alignment) * header.alignment
        if ggml_type(entry.type) != TensorType["Q8_0"] or not count or room not in (4 + count, padded):
            continue
        if room < count // 32 * 34:
            start, what = header.data_offset + entry.offset, f"tensor {printable(entry.name, 80)}"
            (scale,) = struct.unpack((">" if header.big_endian else "<") + "f", file.read(start, 4, what))
            shape, encoding = tuple(reversed(entry.dims)), AprQ8.of(scale)
            found[entry.name] = TensorInfo(
                entry.name, entry.name, TensorType["F32"], shape, file.path, start + 4, count, encoding=encoding
            )
    return found


def _take_version(cursor: _Cursor) -> None:
    """Read the version, which also tells in which order the bytes of all numbers are."""
    version = cursor.u32("the version")
    if version & 0xFFFF == 0:
        cursor.order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in (2, 3):
        raise UnsupportedModelError(f"{cursor.file.shown} is GGUF version {version}; supported are versions 2 and 3.")


def _metadata(cursor: _Cursor, n_keys: int) -> dict[str, object]:
    metadata: dict[str, object] = {}
    for _ in range(n_keys):
        key = cursor.string("a metadata key")
        if key in metadata:
            raise ArtifactError(
                f"{cursor.file.shown} is malformed: metadata key {printable(key, 80)} stands there twice; "
                "convert it again."
            )
        metadata[key] = _value(cursor, cursor.u32("a metadata type"), f"metadata {printable(key, 80)}")
    return metadata


def _value(cursor: _Cursor, type: int, what: str) -> object:
    if type == _STRING:
        return cursor.string(what)
    if type == _ARRAY:
        return _array(cursor, what)
    if type not in _SCALARS:
        raise ArtifactError(f"{cursor.file.shown} is malformed: {what} has the unknown type {type}; convert it again.")
    return cursor.unpack(struct.Struct(cursor.order + _SCALARS[type][0]), what)


def _array(cursor: _Cursor, what: str) -> LazyArray:
    element, length = cursor.u32(what), cursor.u64(what)
    start = cursor.position
    file, order = cursor.file, cursor.order
    if element == _STRING:
        cursor.skip_strings(length, what)
        nbytes = cursor.position - start
        return LazyArray(length, "string", lambda: _strings(file.read(start, nbytes, what), length, order))
    if element not in _SCALARS or length > MAX_ELEMENTS:
        raise ArtifactError(
            f"{file.shown} is malformed: {what} is an array of {length} elements of type {element}; convert it again."
        )
    code, name = _SCALARS[element]
    dtype = np.dtype(order + code)
    nbytes = length * dtype.itemsize
    cursor.skip(nbytes, what)
    return LazyArray(length, name, lambda: np.frombuffer(file.read(start, nbytes, what), dtype).tolist())


def _strings(data: bytes, count: int, order: str) -> list[str]:
    strings, position = [], 0
    unpack = _ORDERS[order][1].unpack_from
    for _ in range(count):
        start = position + 8
        position = start + unpack(data, position)[0]
        strings.append(data[start:position].decode("utf-8", "surrogateescape"))
    return strings


def _entry(cursor: _Cursor) -> Entry:
    name = cursor.string("a tensor name")
    what = f"the entry of tensor {printable(name, 80)}"
    n_dims = cursor.u32(what)
    if not 1 <= n_dims <= 4:
        raise ArtifactError(f"{cursor.file.shown} is malformed: {what} claims {n_dims} dimensions; download it again.")
    dims = [cursor.u64(what) for _ in range(n_dims)]
    return Entry(name, dims, cursor.u32(what), cursor.u64(what))


def _located(file: ModelFile, header: Header, entry: Entry) -> TensorInfo:
    name, dims = entry.name, entry.dims
    while len(dims) > 2 and dims[-1] == 1:
        dims = dims[:-1]
    shape = tuple(reversed(dims))
    check_rank(file.shown, name, shape)
    kind = ggml_type(entry.type)
    nbytes = check_blocks(file.shown, name, kind, shape)
    offset = header.data_offset + entry.offset
    file.require(offset, nbytes, f"tensor {printable(name, 80)}")
    if header.big_endian:
        return TensorInfo(name, name, of_big_endian(kind), shape, file.path, offset, nbytes, encoding=BIG_ENDIAN)
    return TensorInfo(name, name, kind, shape, file.path, offset, nbytes)
