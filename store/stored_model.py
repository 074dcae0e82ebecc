"""A model on disk as far as no forward is needed: its settings as they are written, and every tensor located."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.errors import MissingTensorError, UnsupportedModelError, WorkbenchError
from kernels.family import Factors
from kernels.weight import TensorType, Weight
from store.encodings import Encoding
from store.errors import ArtifactError
from store.files.model_file import ModelFile
from store.names import EMBEDDING, LM_HEAD, layer_of
from store.tensor_types import StoredType
from store.text import printable
from store.vocabulary import Vocabulary

if TYPE_CHECKING:
    from kernels.packed.packed import Packed

Format = Literal["gguf", "apr", "safetensors"]

_SMALL = 1 << 20  # bytes of a part that is read at once
_HASH_CHUNK = 1 << 22
NORM = "norm.weight"
A_LOG = ".A_log"
NEVER_LESS_ONE = "linear_attn.norm.weight"  # beside norms that are
FLOATS = (TensorType["F32"], TensorType["F16"], TensorType["BF16"])


class Picked(NamedTuple):
    """Rows that lie between others: of every `of` rows so many, from `first` on.

    across : they are the columns of what lies there.
    """

    first: int
    size: int
    of: int
    across: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """The stored parts that a tensor is made of, and how; `first` row of what they make is its own first one."""

    parts: "Mapping[str, TensorInfo]"
    make: Callable[[Mapping[str, NDArray[np.uint8]]], "Packed"]
    first: int = 0


class Reordered(NamedTuple):
    """Which stored rows, or elements of a vector, and columns are the canonical ones; None for the same order."""

    rows: NDArray[np.intp] | None = None
    columns: NDArray[np.intp] | None = None


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a stored tensor lies: `shape` is [..., out, in] (or [n]), `nbytes` bytes at `offset` of `file`.

    nbytes : 0 for a type whose size is not known, and for a tensor without values. picked : which rows of what lies
    there are its own, where they lie between others; None for all. packing : of a tensor that is stored in several
    parts, of which it is one; `offset` is that of the first. encoding : how they lie there, if not simply as rows of
    `type`. turned : a matrix of floats that lies there with rows and columns exchanged. part_of : rows of the matrix
    that it is a part of, 0 where it is whole.
    """

    name: str  # canonical (Hugging Face)
    raw_name: str
    type: StoredType
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int
    picked: Picked | None = None
    packing: Packing | None = None
    encoding: Encoding | None = None
    turned: bool = False
    part_of: int = 0

    def some_rows(self, first: int, count: int) -> "TensorInfo":
        """The same of `count` rows, from row `first` on."""
        row = self.nbytes // self.shape[0]
        whole = self.part_of or self.shape[0]
        own = replace(self, shape=(count, *self.shape[1:]), nbytes=row * count, part_of=whole)
        if self.packing is not None:
            return replace(own, packing=replace(self.packing, first=self.packing.first + first))
        return replace(own, offset=self.offset + row * first)

    def place(self, row: int) -> int:
        """Which of the rows that lie there one of its own is."""
        picked = self.picked
        return row if picked is None else row // picked.size * picked.of + picked.first + row % picked.size

    @property
    def stored_as(self) -> str:
        """What it is stored as, in a word."""
        encoded = None if self.encoding is None else self.encoding.name
        return self.type.name if encoded is None else encoded

    @property
    def unread(self) -> str | None:
        """Why the values cannot be had, None if they can."""
        if not isinstance(self.type, TensorType) and self.packing is None:
            return f"type {self.type.name}{self.type.note} cannot be read yet"
        return None if self.nbytes else "it is empty"


@dataclass(kw_only=True)
class StoredModel:
    """A model file, or folder of files, whose tensors are known by place, type and shape.

    tensors
        Stored tensors by canonical name, or by the stored one where no canonical name is known. With tied embeddings
        `lm_head.weight` is not among them, though `weight("lm_head.weight")` answers with the embedding.
    interleaved
        Tensors whose rows are stored for adjacent-pair rotation, with their number of heads; `weight` returns
        those rows in canonical order.
    reordered
        Tensors whose rows or columns are stored in another order than the canonical one, and not for rotation.
    minus_exp
        A tensor of decays holds the logarithm of them; `weight` gives -exp of it, in float32.
    less_one
        Norm weights are stored less 1, which the engine adds; so does `weight`, in float32 as the engine does.
    factors
        What tensors, by their names in a layer or whole, are multiplied by as GGUF's converters do; `weight` does so.
    problems
        Sentences about what is odd in the file, though it can be read.
    metadata
        What the file says about itself, as it says it; long arrays are LazyArray.
    sources
        The files that decide what the model computes, config.json included.
    refusal
        Why the model cannot be run; None if it can.
    beside
        Sentences about weights that lie beside its files and are not read; they are among the problems too.
    is_part
        It is one of several files of a model, so that tensors may be missing without anything being wrong.
    """

    path: Path
    format: Format
    tensors: dict[str, TensorInfo]
    sources: tuple[ModelFile, ...]
    problems: tuple[str, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)
    interleaved: Mapping[str, int] = field(default_factory=dict)
    reordered: Mapping[str, Reordered] = field(default_factory=dict)
    minus_exp: bool = False
    less_one: bool = False
    factors: Factors = field(default_factory=dict)
    vocabulary: Vocabulary | None = None
    refusal: WorkbenchError | None = None
    beside: tuple[str, ...] = ()
    is_part: bool = False
    _sha256: str | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of the files that decide what the model computes."""
        return tuple(source.path for source in self.sources)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Whatever may be read of this model: its path, which can be a folder, its files, and its tokenizer."""
        tokenizer = None if self.vocabulary is None else self.vocabulary.json_path
        return (self.path, *self.files, *(() if tokenizer is None else (tokenizer,)))

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(source.size for source in self.sources)

    @property
    def tied(self) -> bool:
        """Whether the output head is the embedding matrix."""
        if LM_HEAD in self.tensors:
            return False
        return self.format != "safetensors" or self.metadata.get("tie_word_embeddings") is True

    def __contains__(self, name: object) -> bool:
        return self._stored_name(name) in self.tensors

    def info(self, name: str) -> TensorInfo:
        """Return where a tensor lies, by canonical name; MissingTensorError if the model does not have it."""
        info = self.tensors.get(str(self._stored_name(name)))
        if info is None:
            raise MissingTensorError(
                f"{printable(self.path.name)} has no tensor {printable(name)}; `workbench inspect` lists its tensors."
            )
        return info

    def weight(self, name: str) -> Weight:
        """Return a tensor by canonical name, mapped from the file when its bytes are touched.

        One of more than two axes comes as the matrix of all its rows. Raises MissingTensorError for a name that the
        model does not have, UnsupportedModelError for a tensor whose values cannot be had.
        """
        info = self.info(name)
        if self.factors_of(info.name):
            return self._multiplied(name, info)
        if info.packing is not None:
            return Weight(name, TensorType["F32"], info.shape, self._packed(info, info.packing))
        if info.unread is not None or not isinstance(info.type, TensorType):
            raise UnsupportedModelError(
                f"{printable(self.path.name)}: tensor {printable(info.raw_name, 80)}: {info.unread}."
            )
        rows, type, less_one = self._map(info, info.type), info.type, None
        if self.adds_one(name):
            less_one = type
            rows, type = (floats(rows, type) + np.float32(1)).view(np.uint8), TensorType["F32"]
        if self.minus_exp and info.name.endswith(A_LOG):
            rows, type = -np.exp(floats(rows, self._float(info)).astype(np.float64)), TensorType["F32"]
            rows = rows.astype(np.float32).view(np.uint8)
        order = self.row_order(info.name)
        if (moved := self.reordered.get(info.name, Reordered()).columns) is not None:
            rows = rows.reshape(len(rows), len(moved), -1)[:, moved].reshape(rows.shape)
        if order is not None and len(info.shape) == 1:  # one row, whose elements stand for the rows of the matrix
            rows, order = rows.reshape(len(order), -1)[order].reshape(rows.shape), None
        shape = info.shape if len(info.shape) in (1, 2) else (len(rows), *info.shape[-1:]) if info.shape else (1,)
        if info.encoding is None:
            return Weight(name, type, shape, rows, order, less_one, part_of=info.part_of)
        origin = info.encoding.origin(self._bytes(info), info.shape)
        origin = None if origin is None else replace(origin, order=order)
        return Weight(name, type, shape, rows, order, less_one, info.encoding.step, origin)

    def factors_of(self, name: str) -> tuple[NDArray[np.float32], ...]:
        """Return what a tensor is multiplied by, one after the other."""
        return self.factors.get(name if layer_of(name) is None else name.split(".", 3)[-1], ())

    def _multiplied(self, name: str, info: TensorInfo) -> Weight:
        """Return a tensor that the configuration has multipliers for, with these."""
        if info.packing is not None or info.encoding is not None:
            shown = f"{printable(self.path.name)}: tensor {printable(info.raw_name, 80)}"
            raise UnsupportedModelError(f"{shown} is quantized and has a multiplier; give the model as floats.")
        type = self._float(info)
        values = floats(self._map(info, type), type)
        for factor in self.factors_of(info.name):
            values = values * factor
        return Weight(name, TensorType["F32"], info.shape, values.view(np.uint8))

    def row_order(self, name: str) -> NDArray[np.intp] | None:
        """Return which stored row of a tensor every canonical row is; None where the order is the same."""
        heads = self.interleaved.get(name)
        if heads:
            return _canonical_order(self.tensors[name].shape[0], heads)
        return self.reordered.get(name, Reordered()).rows

    def stored_rows(self, name: str) -> NDArray[np.uint8]:
        """Return the rows of a stored tensor in the order of the file, as `weight` does without reordering.

        Those of a packed one are made: float32.
        """
        info = self.tensors[name]
        if info.packing is not None:
            return self._packed(info, info.packing)[:]
        assert isinstance(info.type, TensorType)
        return self._map(info, info.type)

    def _packed(self, info: TensorInfo, packing: Packing) -> "Packed":
        """The rows that parts make, of which this tensor may have some only."""
        whole = packing.make({part: self._bytes(each) for part, each in packing.parts.items()})
        if info.picked is None and not packing.first and info.shape[0] == len(whole):
            return whole
        own = packing.first + np.array([info.place(row) for row in range(info.shape[0])])
        return replace(whole, size=(len(own), whole.size[1]), chosen=own)

    def stored_bytes(self, name: str) -> NDArray[np.uint8] | None:
        """Return the bytes of a tensor in little-endian order, also of a type that is not read; None if unknown."""
        info = self.info(name)
        if not info.nbytes or (info.encoding is not None and not isinstance(info.type, TensorType)):
            return None
        if info.packing is not None:
            return np.concatenate([self._bytes(part).reshape(-1) for part in info.packing.parts.values()])
        return self._decoded(info)

    def undecoded(self, name: str) -> NDArray[np.uint8]:
        """Return the bytes of a stored tensor as they lie in the file."""
        return self._bytes(self.tensors[name]).reshape(-1)

    def part(self, info: TensorInfo) -> bytes:
        """Return the bytes of a small part of a tensor, which says something about the others."""
        if info.nbytes > _SMALL:
            raise ArtifactError(
                f"{printable(info.file.name)}: {printable(info.raw_name, 80)} takes {info.nbytes} bytes, where a few "
                "belong; download it again."
            )
        return self._bytes(info).tobytes()

    def require_unchanged(self) -> None:
        """Raise ArtifactError if a file of this model was replaced or written to since it was opened.

        To be called when the last of its bytes has been read, since what is mapped changes with the file.
        """
        for source in self.sources:
            source.require_unchanged()

    def adds_one(self, name: str) -> bool:
        """Tell whether a tensor is stored less 1."""
        if not self.less_one or not name.endswith(NORM) or name.endswith(NEVER_LESS_ONE):
            return False
        return self.info(name).type in FLOATS

    def _float(self, info: TensorInfo) -> TensorType:
        if info.type not in FLOATS or not isinstance(info.type, TensorType):
            shown = f"{printable(self.path.name)}: tensor {printable(info.raw_name, 80)}"
            raise UnsupportedModelError(f"{shown} has the type {info.type.name}; only floats are supported there.")
        return info.type

    def permuted(self, name: str) -> bool:
        """Tell whether the rows of a tensor are stored in another order than the canonical one."""
        return name in self.interleaved

    def sha256(self, progress: Callable[[int, int], None] | None = None) -> str:
        """Return the SHA-256 of the file, or of the "name  sha256" lines of `files` when there are several.

        progress : called with bytes done and bytes in all.
        """
        if self._sha256 is None:
            self._sha256 = self._hash(progress)
        return self._sha256

    def _stored_name(self, name: object) -> object:
        return EMBEDDING if name == LM_HEAD and self.tied else name

    @cached_property
    def _source_of(self) -> dict[Path, ModelFile]:
        return {source.path: source for source in self.sources}

    def _map(self, info: TensorInfo, type: TensorType) -> NDArray[np.uint8]:
        data = self._decoded(info)
        element = type.block
        if element.elements == 1 and info.offset % element.bytes:
            data = data.copy()  # so that the rows can be viewed as numbers
        if info.turned:
            values = data.reshape(*info.shape[::-1], element.bytes)
            return np.ascontiguousarray(values.swapaxes(0, 1)).reshape(info.shape[0], -1)
        return data.reshape(int(np.prod(info.shape[:-1], dtype=np.int64)), -1)

    def _bytes(self, info: TensorInfo) -> NDArray[np.uint8]:
        source, what = self._source_of[info.file], f"tensor {printable(info.raw_name)}"
        if (picked := info.picked) is None:
            data = source.map(info.offset, info.nbytes, what)
        else:
            groups = info.shape[0] // picked.size
            data = source.map(info.offset, info.nbytes // picked.size * picked.of, what)
            if picked.across:
                data = data.reshape(info.shape[-1], groups * picked.of, -1).swapaxes(0, 1)
            data = data.reshape(groups, picked.of, -1)[:, picked.first : picked.first + picked.size].reshape(-1)
        return data

    def _decoded(self, info: TensorInfo) -> NDArray[np.uint8]:
        data = self._bytes(info)
        if info.encoding is None or not isinstance(info.type, TensorType):
            return data.reshape(-1)
        return info.encoding.decoded(data, info.type, info.shape)

    def _hash(self, progress: Callable[[int, int], None] | None) -> str:
        done, digests = 0, list[str]()
        for source in self.sources:
            digest = hashlib.sha256()
            try:
                with source.path.open("rb") as file:
                    while chunk := file.read(_HASH_CHUNK):
                        digest.update(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress(done, self.size)
            except OSError as error:
                raise ArtifactError(f"{printable(str(source.path))} cannot be read ({error.strerror}).") from None
            digests.append(digest.hexdigest())
        if len(digests) == 1:
            return digests[0]
        lines = (f"{path.name}  {digest}\n" for path, digest in zip(self.files, digests, strict=True))
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def floats(rows: NDArray[np.uint8], type: TensorType) -> NDArray[np.float32]:
    """Return rows of a type whose elements are floats (FLOATS) as float32, without compiled kernels."""
    if type == TensorType["BF16"]:
        return (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return rows.view(np.float16 if type == TensorType["F16"] else np.float32).astype(np.float32)


def runnable(found: StoredModel, complete: "Callable[[], StoredModel]") -> StoredModel:
    """Return what `complete` makes of a stored model, or the stored model with the reason why it cannot be run."""
    try:
        return complete()
    except (ArtifactError, UnsupportedModelError) as error:
        found.refusal = error
        return found


def _canonical_order(rows: int, heads: int) -> NDArray[np.intp]:
    """Return where canonical rows are in llama GGUF files: row s*head_dim/2+i of every head is stored as row 2i+s."""
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
