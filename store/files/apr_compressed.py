"""APR files that are compressed behind their header, as realizar reads them: an LZ4 block or a Zstandard frame.

No writer is known that makes such files, though several set the flag: then the rest is not compressed, and read as it
is.
"""

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import numpy as np
from numpy.typing import NDArray

from kernels.errors import UnsupportedModelError
from store.errors import ArtifactError
from store.files import apr_format as apr
from store.files.model_file import ModelFile

_LZ4_RATIO = 255  # the most that a byte of a block stands for
_ZSTD_RATIO, _ZSTD_FREE = 32, 1 << 28  # weights do not shrink so much; a small file may be of zeros
_CHUNK = 1 << 20
_INSTALL = "which needs more packages; install layer-workbench[compressed]"


@dataclass(frozen=True)
class UnpackedFile(ModelFile):
    """What a compressed file holds, in a temporary file without a name; `size` is the unpacked one."""

    packed: ModelFile
    content: mmap.mmap

    def read(self, offset: int, length: int, what: str) -> bytes:
        self.require(offset, length, what)
        return self.content[offset : offset + length]

    @cached_property
    def _whole(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.content, np.uint8)

    @contextmanager
    def mapped(self) -> Iterator[mmap.mmap]:
        yield self.content

    def require_unchanged(self) -> None:
        self.packed.require_unchanged()


def unpacked(file: ModelFile) -> ModelFile:
    """Return the file that a compressed one holds, any other as it is.

    UnsupportedModelError if a package is missing that unpacks it, ArtifactError if it cannot be unpacked.
    """
    start = file.read(0, min(file.size, apr.HEADER.size), "the header")
    if len(start) < apr.HEADER.size or start[:4] not in (apr.MAGIC, b"APR2"):
        return file
    _, _, _, flags, _, metadata_offset, metadata_size, *_ = apr.HEADER.unpack(start)
    if not flags & (apr.FLAG_LZ4 | apr.FLAG_ZSTD) or flags & apr.FLAG_ENCRYPTED:
        return file
    end = metadata_offset + metadata_size - 1
    if end < file.size and file.read(metadata_offset, 1, "it") + file.read(end, 1, "it") == b"{}":  # not compressed
        return file
    if not file.whole:
        raise UnsupportedModelError(f"{file.shown} is compressed, so its header is not to be had alone; download it.")
    place: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - mapped, it goes with the map
    with place:
        try:
            place.write(start)
            (_unpack_lz4 if flags & apr.FLAG_LZ4 else _unpack_zstd)(file, place)
            place.flush()
            content = mmap.mmap(place.fileno(), 0, access=mmap.ACCESS_COPY)
        except OSError as error:
            raise ArtifactError(f"{file.shown} cannot be unpacked ({error.strerror}); make room.") from None
    return UnpackedFile(file.path, len(content), file.modified, file.inode, file, content)


def _unpack_lz4(file: ModelFile, place: IO[bytes]) -> None:
    try:
        from lz4.block import LZ4BlockError, decompress
    except ImportError:
        raise UnsupportedModelError(f"{file.shown} is compressed with LZ4, {_INSTALL}.") from None
    packed = file.read(apr.HEADER.size, file.size - apr.HEADER.size, "the compressed data")
    size = int.from_bytes(packed[:4], "little")
    if len(packed) < 4 or size > _LZ4_RATIO * len(packed):
        raise _damaged(file, "LZ4")
    try:
        place.write(decompress(packed[4:], uncompressed_size=size))
    except (LZ4BlockError, ValueError):
        raise _damaged(file, "LZ4") from None


def _unpack_zstd(file: ModelFile, place: IO[bytes]) -> None:
    try:
        from zstandard import ZstdDecompressor, ZstdError
    except ImportError:
        raise UnsupportedModelError(f"{file.shown} is compressed with Zstandard, {_INSTALL}.") from None
    left = file.size * _ZSTD_RATIO + _ZSTD_FREE
    try:
        with file.path.open("rb") as packed:
            packed.seek(apr.HEADER.size)
            reader = ZstdDecompressor(max_window_size=1 << 27).stream_reader(packed)
            while chunk := reader.read(_CHUNK):
                left -= place.write(chunk)
                if left < 0:
                    raise ArtifactError(
                        f"{file.shown} unpacks to more than any model of its size does; it is malformed, convert it "
                        "again."
                    )
    except ZstdError:
        raise _damaged(file, "Zstandard") from None


def _damaged(file: ModelFile, how: str) -> ArtifactError:
    return ArtifactError(
        f"{file.shown} says that it is compressed with {how} and is not, or is damaged; convert or download it again."
    )
