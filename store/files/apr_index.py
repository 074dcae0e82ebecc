"""Read what stands before the tensor data of an APR v2 file: header, metadata, tensor index; and its checksums.

What writers leave out or get wrong, such as checksums, is reported as a problem and not refused.
"""

import struct
import zlib
from dataclasses import dataclass

from kernels.errors import UnsupportedModelError
from store.errors import ArtifactError
from store.files import apr_format as apr
from store.files.apr_compressed import unpacked
from store.files.json_text import parse_object
from store.files.model_file import ModelFile
from store.layout import check_overlaps, check_rank
from store.stored_model import TensorInfo
from store.text import printable
from store.vocabulary import LazyArray

MAX_TENSORS = 1 << 16
MAX_CHECKED = 64 << 20  # the footer of a larger file is not verified when it is opened
_CLASSICAL = {  # APR version 1, by number
    **{1: "a linear regression", 2: "a logistic regression", 3: "a decision tree", 4: "a random forest"},
    **{5: "gradient boosting", 6: "k-means", 7: "a principal component analysis", 8: "naive Bayes"},
    **{9: "nearest neighbours", 10: "a support vector machine", 0x10: "n-grams", 0x11: "TF-IDF"},
    **{0x12: "a count vectorizer", 0x20: "a sequential neural network", 0x21: "a neural network"},
    **{0x30: "a recommender", 0x40: "a mixture of experts"},
}


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed header of an APR v2 file."""

    flags: int
    tensor_count: int
    metadata_offset: int
    metadata_size: int
    index_offset: int
    data_offset: int
    problems: list[str]


@dataclass(frozen=True, slots=True)
class AprFile:
    """A file as it was read: unpacked where it was compressed, its metadata, its tensors, and what is odd."""

    file: ModelFile
    metadata: dict[str, object]
    tensors: list[TensorInfo]
    problems: list[str]


def read_apr(file: ModelFile) -> AprFile:
    """Read header, metadata and tensor index of a file; see `store.open.open_model` for the errors."""
    file = unpacked(file)
    header = _read_header(file)
    metadata = _read_metadata(file, header)
    _refuse_json_weights(file, header)
    stored = _read_index(file, header)
    problems = header.problems + _index_problems(file, stored) + _footer_problems(file, stored)
    if header.flags & apr.FLAG_SIGNED:
        problems.append(f"{file.shown} is signed; the signature was not verified.")
    return AprFile(file, metadata, stored, problems + _encoded(file, stored))


def _read_header(file: ModelFile) -> Header:
    start = file.read(0, min(file.size, apr.HEADER.size), "the header")
    _refuse_relatives(file, start)
    file.require(0, apr.HEADER.size, "the header")
    _, major, minor, flags, count, metadata_offset, size, index_offset, data_offset, checksum = apr.HEADER.unpack(start)
    if major != 2:
        raise UnsupportedModelError(f"{file.shown} is APR version {major}.{minor}; only version 2 is read.")
    if flags & apr.FLAG_ENCRYPTED:
        raise UnsupportedModelError(f"{file.shown} is encrypted; decrypt it with the `apr` tool first.")
    if flags & apr.FLAG_COLUMN_MAJOR:
        raise UnsupportedModelError(
            f"{file.shown} stores its matrices by columns; only rows are read, convert it again."
        )
    if count > MAX_TENSORS:
        raise ArtifactError(f"{file.shown} is malformed: it claims {count} tensors; download or convert it again.")
    file.require(metadata_offset, size, "the metadata")
    file.require(index_offset, 0, "the tensor index")
    file.require(data_offset, 0, "the tensor data")
    problems = []
    expected = apr.header_checksum(start)
    if checksum == 0:
        problems.append(f"{file.shown} has no header checksum (0), so its header could not be verified.")
    elif checksum != expected:
        problems.append(
            f"{file.shown} has the header checksum {checksum:#010x} where {expected:#010x} is right; "
            "it may be damaged, convert or download it again."
        )
    return Header(flags, count, metadata_offset, size, index_offset, data_offset, problems)


def _refuse_relatives(file: ModelFile, start: bytes) -> None:
    """Refuse the other formats whose name starts with APR, each by what it is."""
    magic = start[:4]
    if magic in (apr.MAGIC, b"APR2"):
        return
    kind = _CLASSICAL.get(int.from_bytes(start[6:8], "little"), "a classical machine-learning model")
    what = {
        b"APRN": f"an APR version 1 file ({kind}), recognised but not a language model",
        b"APR1": "a whisper.apr speech model, recognised but not a language model",
    }.get(magic, "of an unknown kind of APR")
    raise UnsupportedModelError(f"{file.shown} is {what}; give an APR version 2 language model.")


def _read_metadata(file: ModelFile, header: Header) -> dict[str, object]:
    data = file.read(header.metadata_offset, min(header.metadata_size, apr.MAX_METADATA + 1), "the metadata")
    metadata = parse_object(data, f"the metadata of {file.shown}")
    return {key: _shortened(value) for key, value in metadata.items()}


def _shortened(value: object) -> object:
    """Return a list as the LazyArray that other formats have for it."""
    if not isinstance(value, list):
        return value
    kinds = {type(item) for item in value}
    names = {str: "string", int: "int64", float: "float64", bool: "bool"}
    return LazyArray(len(value), names.get(kinds.pop(), "object") if len(kinds) == 1 else "object", lambda: value)


def _refuse_json_weights(file: ModelFile, header: Header) -> None:
    start = file.read(header.index_offset, min(2, file.size - header.index_offset), "the tensor index")
    if start[:1] == b"[" and start[1:] != b"\0":  # read as the length of a name it would be too long
        raise UnsupportedModelError(
            f"{file.shown} keeps its weights as one JSON text (an early converter's dialect); convert the model again."
        )


def _read_index(file: ModelFile, header: Header) -> list[TensorInfo]:
    """Read the tensor index; every length is checked before it is used."""
    if header.index_offset > header.data_offset:
        raise ArtifactError(
            f"{file.shown} is malformed: its tensor data starts before its tensor index; convert it again."
        )
    longest = header.tensor_count * (2 + apr.MAX_NAME + 2 + 8 * apr.MAX_DIMS + 16)
    data = file.read(header.index_offset, min(header.data_offset - header.index_offset, longest), "the tensor index")
    stored, position = [], 0
    try:
        for _ in range(header.tensor_count):
            info, position = _entry(file, header, data, position)
            stored.append(info)
    except struct.error:
        raise ArtifactError(
            f"{file.shown} is truncated or malformed: its index ends after {len(stored)} of {header.tensor_count} "
            "tensors; download or convert it again."
        ) from None
    return stored


def _entry(file: ModelFile, header: Header, data: bytes, position: int) -> tuple[TensorInfo, int]:
    """Read one index entry; struct.error if the index ends within it."""
    (length,) = struct.unpack_from("<H", data, position)
    if length > apr.MAX_NAME:
        raise ArtifactError(
            f"{file.shown} is malformed: a tensor name has {length} bytes; download or convert it again."
        )
    (raw,) = struct.unpack_from(f"<{length}s", data, position + 2)
    name = raw.decode("utf-8", "surrogateescape")
    position += 2 + length
    code, n_dims = struct.unpack_from("<BB", data, position)
    if n_dims > apr.MAX_DIMS:
        raise ArtifactError(f"{file.shown} is malformed: tensor {printable(name, 80)} claims {n_dims} dimensions.")
    *dims, offset, size = struct.unpack_from(f"<{n_dims + 2}Q", data, position + 2)
    shape = tuple(dims)
    check_rank(file.shown, name, shape)
    what, start = f"tensor {printable(name, 80)}", header.data_offset + offset
    file.require(start, size, what)
    stored = apr.stored_as(file.shown, name, code, shape, size, lambda at, count: file.read(start + at, count, what))
    start, size = start + stored.before, size - stored.before
    info = TensorInfo(name, name, stored.type, shape, file.path, start, size, encoding=stored.encoding)
    return info, position + 2 + 8 * (n_dims + 2)


def _index_problems(file: ModelFile, stored: list[TensorInfo]) -> list[str]:
    check_overlaps(file.shown, stored)
    names = [info.raw_name.encode("utf-8", "surrogateescape") for info in stored]
    if names == sorted(names):
        return []
    return [f"{file.shown} has an unsorted tensor index, which strict readers refuse."]


def _footer_problems(file: ModelFile, stored: list[TensorInfo]) -> list[str]:
    end = apr.padded(max((info.offset + info.nbytes for info in stored), default=0))
    if file.size < end + 4:
        return [f"{file.shown} has no footer checksum, so its content could not be verified."]
    if file.size > MAX_CHECKED or not file.whole:
        why = "the file is large" if file.whole else "only the header was fetched"
        return [f"The footer checksum of {file.shown} was not verified, because {why}."]
    checksum = int.from_bytes(file.read(file.size - 4, 4, "the footer"), "little")
    with file.mapped() as data:
        expected = zlib.crc32(memoryview(data)[:-4])
    if checksum == expected:
        return []
    return [
        f"{file.shown} has the footer checksum {checksum:#010x} where {expected:#010x} is right; "
        "it may be damaged, convert or download it again."
    ]


def _encoded(file: ModelFile, stored: list[TensorInfo]) -> list[str]:
    """Say of which kinds that only APR has tensors are, and as what they are read."""
    names = [(info.stored_as, info.type.name) for info in stored if info.encoding is not None]
    return [
        f"{file.shown} holds {names.count(kind)} tensors of {kind[0]}, read as {kind[1]}; products with them are "
        f"computed as with {kind[1]}."
        for kind in sorted(set(names))
    ]
