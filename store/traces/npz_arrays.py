"""NumPy archives (`.npz`): a zip file of `.npy` arrays, stored or deflated.

Nothing is unpacked before its size is known: what the directory, the local header and the array's own header say must
agree with each other and with the file. Values are checked against the archive's CRC-32 when they are read.
"""

import io
import math
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import StoreError
from store.files.model_file import ModelFile
from store.text import printable
from store.traces.arrays import FLOATS, MAX_TEXT, StoredArray
from store.traces.kind import ZIP

MAX_DIRECTORY = 16 << 20  # bytes; some 100 000 arrays
MAX_UNPACKED = 1 << 30  # bytes of one deflated array
_MAX_DEFLATION = 1032  # no deflated stream grows more
_LOCAL_HEADER = 30
_NPY_HEADER = 12_000  # numpy itself reads headers of up to 10 000 bytes
_END, _END_SEARCH = b"PK\x05\x06", 22 + 65_535


def read_npz(file: ModelFile) -> dict[str, StoredArray]:
    """Locate every array of an archive, by its name without ".npy"; StoreError if any of them is not what it claims."""
    _check_directory_size(file)
    try:
        with zipfile.ZipFile(file.path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile turns damage into many kinds of exception
        raise _damaged(file, "its zip directory cannot be read") from error
    arrays: dict[str, StoredArray] = {}
    for info in members:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in arrays:
            why = "is not a numpy array" if name == info.filename else "stands twice in it"
            raise StoreError(f"{file.shown} is not a stage dump: {printable(info.filename, 80)} {why}.")
        arrays[name] = _Member(file, info).located()
    return arrays


def read_text(arrays: dict[str, StoredArray], name: str, file: ModelFile) -> str | None:
    """Return the text that an array without dimensions holds, or None if there is no array of that name."""
    array = arrays.get(name)
    if array is None:
        return None
    kind = None if array.dtype in FLOATS else np.dtype(array.dtype)
    if array.shape != () or kind is None or kind.kind not in "US" or kind.itemsize > MAX_TEXT:
        raise StoreError(f"{file.shown}: {name} is not a text; record the trace again.")
    try:
        value = array.load()[()]
        text = value.decode() if isinstance(value, bytes) else str(value)
        all(text)  # NumPy makes a text of numbers that are no characters; taking one out is what fails
        return text
    except (ValueError, SystemError):
        raise _damaged(file, f"the text {name} cannot be decoded") from None


class _Member:
    """One file of the archive."""

    def __init__(self, file: ModelFile, info: zipfile.ZipInfo) -> None:
        self.file = file
        self.info = info
        self.what = printable(info.filename, 80)
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        if info.flag_bits & 1 or not (deflated or info.compress_type == zipfile.ZIP_STORED):
            raise StoreError(f"{file.shown}: {self.what} is encrypted or packed in a way numpy never writes.")
        limit = min(info.compress_size * _MAX_DEFLATION, MAX_UNPACKED) if deflated else info.compress_size
        if info.file_size > limit or not (deflated or info.file_size == limit):
            raise StoreError(f"{file.shown}: {self.what} claims {info.file_size} bytes, more than can be in there.")
        self.deflated = deflated

    def located(self) -> StoredArray:
        """Return the array, checked and not yet read; StoreError if its header and its size disagree."""
        shape, fortran, dtype, skip = self.header()
        expected = skip + dtype.itemsize * math.prod(shape)
        if expected != self.info.file_size:
            raise _damaged(self.file, f"{self.what} has {self.info.file_size} bytes where its header tells {expected}")

        def load() -> NDArray[Any]:
            values = np.frombuffer(self.content(), dtype, offset=skip)
            return values.reshape(shape, order="F" if fortran else "C")

        kind = "bfloat16" if dtype.str == "|V2" else dtype.name if dtype.kind == "f" else dtype.str
        return StoredArray(shape, kind, load)

    def header(self) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        """Return shape, whether columns come first, type, and where in the member the values begin."""
        stream = io.BytesIO(self.beginning())
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except Exception as error:  # literal_eval of a hostile header may raise nearly anything
            raise _damaged(self.file, f"{self.what} is not a numpy array") from error
        if dtype.hasobject or dtype.names or dtype.subdtype or any(n < 0 for n in shape):
            raise StoreError(f"{self.file.shown}: {self.what} holds Python objects or records, which are never loaded.")
        return shape, fortran, dtype, stream.tell()

    def place(self) -> int:
        """Return the offset of the member's bytes in the file."""
        start = self.info.header_offset
        local = self.file.read(start, _LOCAL_HEADER, self.what)
        if local[:4] != ZIP:
            raise _damaged(self.file, f"{self.what} does not begin where the directory says")
        start += _LOCAL_HEADER + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        self.file.require(start, self.info.compress_size, self.what)
        return start

    def beginning(self) -> bytes:
        raw = self.file.read(self.place(), min(self.info.compress_size, _NPY_HEADER), self.what)
        return self.inflated(raw, _NPY_HEADER) if self.deflated else raw

    def content(self) -> memoryview:
        """Return the whole member: mapped where it is stored, unpacked to its declared size where it is deflated."""
        mapped = self.file.map(self.place(), self.info.compress_size, self.what).data
        content = memoryview(self.inflated(mapped, self.info.file_size)) if self.deflated else mapped
        if len(content) != self.info.file_size or zlib.crc32(content) != self.info.CRC:
            raise _damaged(self.file, f"{self.what} does not have its checksum")
        return content

    def inflated(self, packed: bytes | memoryview, limit: int) -> bytes:
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit)
        except zlib.error:
            raise _damaged(self.file, f"{self.what} cannot be unpacked") from None


def _check_directory_size(file: ModelFile) -> None:
    tail = min(file.size, _END_SEARCH)
    end = file.read(file.size - tail, tail, "the zip directory")
    at = end.rfind(_END)
    if at < 0 or at + 22 > len(end):
        raise _damaged(file, "it has no zip directory, so it is truncated or no archive")
    if int.from_bytes(end[at + 12 : at + 16], "little") > MAX_DIRECTORY:
        raise StoreError(f"{file.shown} lists far more arrays than a trace has; record fewer stages.")


def _damaged(file: ModelFile, why: str) -> StoreError:
    return StoreError(f"{file.shown} is damaged: {why}; copy it or record the trace again.")
